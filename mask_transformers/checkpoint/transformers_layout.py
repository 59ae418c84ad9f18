"""Weights to and from the library `transformers`: other names, other packing, the same numbers."""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from detectron2.modeling import Backbone
from torch import nn

from .load import LoadReport, load_official_state_dict
from .name_maps.transformers_detr import detr_present_names, detr_rules
from .name_maps.transformers_names import ENCODER, PRESENT_NAMES, RULES
from .name_maps.transformers_parts import Rule
from .read import as_tensor

# What files of transformers hold beyond the weights: it follows from the configuration.
_DERIVED = re.compile(
    r"criterion\.empty_weight$"
    r"|.*\.(?:relative_position_index|num_batches_tracked)$"
    rf"|{re.escape(ENCODER)}(?:model\.|swin\.)?layernorm\."
)
# Those of them that our modules have as buffers, though not in their state dict.
_DERIVED_HERE = re.compile(r"criterion\.class_balance$|.*\.relative_position_index$")
_LISTED = 8  # names in an error message


def to_transformers(
    model: nn.Module, *, published_names: bool = False, timm_backbone: bool = False
) -> dict[str, torch.Tensor]:
    """The state dict of the same model in `transformers`, complete for strict loading.

    That is ``MaskFormerForInstanceSegmentation`` for a MaskFormer with the plain pyramid and
    ``Mask2FormerForUniversalSegmentation`` for a Mask2Former, on a ResNet or a Swin Transformer;
    for a DETR on a ResNet ``DetrForObjectDetection``, with a mask head ``DetrForSegmentation``.
    Names are those of modules of transformers 5; ``published_names`` gives those of published
    files, which are also the modules' in transformers 4 (``from_pretrained`` of 5 takes both).
    ``timm_backbone``: DETR's ResNet is to be timm's over there, the only kind with dilation.
    ValueError names what has no counterpart there.
    """
    system = type(model).__name__
    rules, present = _tables(system, model.state_dict(), timm_backbone)
    converted: dict[str, torch.Tensor] = {}
    unknown = []
    for name, tensor in _tensors(model):
        theirs = _their_names(rules, name)
        if theirs:
            # Clones, as some file formats refuse tensors that share their memory.
            parts = [part.clone() for part in tensor.chunk(len(theirs))]
            converted.update(zip(theirs, parts, strict=True))
        elif not _DERIVED_HERE.match(name):
            unknown.append(name)
    _refuse(unknown, f"{system} of transformers has no counterpart of")
    if not timm_backbone:
        _check_strides(model)
    if not published_names:
        converted = _with_present_names(converted, present)
    return converted | _derived(converted)


def from_transformers(state_dict: Mapping, system: str) -> dict[str, torch.Tensor]:
    """Our state dict for the meta-architecture ``system`` from one of `transformers`.

    ``state_dict`` has tensors or arrays under the names of published files or of modules; what
    follows from the configuration is left out. ValueError names tensors that ``system`` does not
    have, one given twice, and those that are missing beside others of one packed tensor.
    """
    rules, present = _tables(system, state_dict)
    given: dict[str, torch.Tensor] = {}
    packed: dict[str, list[str]] = {}
    unknown = []
    for name, value in state_dict.items():
        published = _our_name(present, name)[0] or name
        if _DERIVED.match(published):
            continue
        if published in given:
            raise ValueError(f"the state dict holds {published} twice, the second time as {name}")
        given[published] = as_tensor(name, value)
        ours, parts = _our_name(rules, published)
        packed[ours] = parts
        if not ours:
            unknown.append(name)
    _refuse(unknown, f"{system} has no counterpart of")
    missing = [part for parts in packed.values() for part in parts if part not in given]
    _refuse(missing, "the state dict lacks")
    return {ours: torch.cat([given[part] for part in parts]) for ours, parts in packed.items()}


def load_transformers_state_dict(model: nn.Module, state_dict: Mapping) -> LoadReport:
    """Load a state dict of `transformers` into ``model``; returns the report, in our names.

    ValueError as in :func:`from_transformers`; CheckpointMismatchError when a tensor of the model
    is missing or has another shape. The model is unchanged then.
    """
    return load_official_state_dict(model, from_transformers(state_dict, type(model).__name__))


def _tables(
    system: str, names: Iterable[str], timm_backbone: bool = False
) -> tuple[list[Rule], list[Rule]]:
    """Rules (our name, published name) and (published name, present name)."""
    if system == "DETR":
        with_masks = any(name.startswith("mask_head.") for name in names)  # there and here
        return detr_rules(with_masks, timm_backbone), detr_present_names(with_masks)
    if system not in RULES:
        raise ValueError(f"{system!r} is not in transformers; known: {', '.join(RULES)}, DETR")
    if timm_backbone:
        raise ValueError(f"timm_backbone is for DETR alone, not for {system}")
    return RULES[system], PRESENT_NAMES[system]


def _check_strides(model: nn.Module) -> None:
    assert isinstance(model.backbone, Backbone)
    last = model.backbone.output_shape().get("res5")
    if last is not None and last.stride != 32:
        raise ValueError(
            "transformers has no counterpart of MODEL.RESNETS.RES5_DILATION 2, but for DETR with "
            "a ResNet of timm (timm_backbone)"
        )


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.state_dict().items()
    yield from ((name, b) for name, b in model.named_buffers() if _DERIVED_HERE.match(name))


def _with_present_names(
    state: Mapping[str, torch.Tensor], present: Iterable[Rule]
) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in state.items():
        new = next(iter(_their_names(present, name)), name)
        if ".relative_position_bias." not in new or not new.endswith("_index"):  # no longer stored
            renamed[new] = tensor
    return renamed


def _derived(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What nothing reads, but strict loading asks for: counts of batches, a norm in Swin."""
    # DETR's norms are frozen ones, which count nothing.
    means = [n for n in state if n.startswith(ENCODER) and n.endswith(".running_mean")]
    derived = {m.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for m in means}
    for place in (ENCODER + "model.", ENCODER + "swin."):
        like = state.get(place + "encoder.layers.3.blocks.0.layernorm_before.weight")
        if like is not None:
            derived[place + "layernorm.weight"] = torch.ones_like(like)
            derived[place + "layernorm.bias"] = torch.zeros_like(like)
    return derived


def _their_names(rules: Iterable[Rule], name: str) -> list[str]:
    """Their names of the parts of our tensor ``name``, in order; none if it has no counterpart."""
    for ours, theirs in rules:
        if match := _pattern(ours).match(name):
            return [_filled(part, match) for part in _parts(theirs)]
    return []


def _our_name(rules: Iterable[Rule], name: str) -> tuple[str, list[str]]:
    """Our tensor that theirs, ``name``, is a part of, and all its parts; "" if there is none."""
    for ours, theirs in rules:
        for part in _parts(theirs):
            if match := _pattern(part).match(name):
                return _filled(ours, match), [_filled(other, match) for other in _parts(theirs)]
    return "", []


@functools.cache
def _parts(template: str) -> list[str]:
    """One template for each choice of ``{q|k|v}``."""
    choice = re.search(r"\{(\w+\|[\w|]+)\}", template)
    if not choice:
        return [template]
    return [template.replace(choice[0], part) for part in choice[1].split("|")]


@functools.cache
def _pattern(template: str) -> re.Pattern:
    """The beginning of a name, where ``{i}`` is any number."""
    return re.compile(re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(template)))


def _filled(template: str, match: re.Match) -> str:
    return template.format(**match.groupdict()) + match.string[match.end() :]


def _refuse(names: list[str], problem: str) -> None:
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise ValueError(f"{problem} {', '.join(names[:_LISTED])}{more}")
