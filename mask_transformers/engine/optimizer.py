"""Optimizer: parameter groups by layer, gradient clipping over the whole model."""

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

_OPTIMIZERS = ("AdamW", "SGD")
_CLIP_TYPES = ("full_model", "norm", "value")
_NORM_LAYERS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
# Embeddings that backbones hold as bare parameters.
_POSITION_TABLES = ("relative_position_bias_table", "absolute_pos_embed")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD (``SOLVER.OPTIMIZER``) with the rates and weight decays of ``SOLVER``.

    The backbone learns at ``BACKBONE_MULTIPLIER`` times ``BASE_LR``; norm layers and embeddings
    have weight decays of their own. Parameters that share both form one group. ValueError names
    the key of an unknown optimizer or clipping type.
    """
    groups = parameter_groups(cfg, model)
    solver = cfg.SOLVER
    options = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY, **_implementation(groups)}
    optimizer: torch.optim.Optimizer
    if solver.OPTIMIZER == "AdamW":
        optimizer = torch.optim.AdamW(groups, **options)
    elif solver.OPTIMIZER == "SGD":
        momentum = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
        optimizer = torch.optim.SGD(groups, **momentum, **options)
    else:
        raise ValueError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}; known: {_OPTIMIZERS}")
    return _with_clipping(cfg, optimizer)


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict]:
    """One group per learning rate and weight decay, of the parameters that require gradients."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for module_name, module, name, parameter in _trained_parameters(model):
        rate = _learning_rate(cfg, module_name, name)
        groups[rate, _weight_decay(cfg, module, name)].append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield module_name, module, name, parameter


def _learning_rate(cfg: CfgNode, module_name: str, name: str) -> float:
    rate = cfg.SOLVER.BASE_LR
    if "backbone" in module_name.split("."):
        rate *= cfg.SOLVER.BACKBONE_MULTIPLIER
    if name == "bias":
        rate *= cfg.SOLVER.BIAS_LR_FACTOR
    return rate


def _weight_decay(cfg: CfgNode, module: nn.Module, name: str) -> float:
    solver = cfg.SOLVER
    if isinstance(module, nn.Embedding) or name in _POSITION_TABLES:
        return solver.WEIGHT_DECAY_EMBED
    if isinstance(module, _NORM_LAYERS):
        return solver.WEIGHT_DECAY_NORM
    if name == "bias" and solver.WEIGHT_DECAY_BIAS is not None:
        return solver.WEIGHT_DECAY_BIAS
    return solver.WEIGHT_DECAY


def _implementation(groups: list[dict]) -> dict[str, bool]:
    # Fused is several times faster on CPUs. On GPUs it would leave unscaling the gradients of
    # mixed precision to itself, which is after they have been clipped.
    on_cpu = all(p.device.type == "cpu" for group in groups for p in group["params"])
    return {"fused": True} if on_cpu else {"foreach": True}


def _with_clipping(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED and clip.CLIP_TYPE not in _CLIP_TYPES:
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {clip.CLIP_TYPE!r}; known: {_CLIP_TYPES}"
        )
    if not clip.ENABLED or clip.CLIP_TYPE != "full_model":
        return maybe_add_gradient_clipping(cfg, optimizer)  # type: ignore[arg-type, return-value]
    optimizer.register_step_pre_hook(full_model_clipping(clip.CLIP_VALUE, clip.NORM_TYPE))
    return optimizer


def full_model_clipping(max_norm: float, norm_type: float) -> Callable:
    """A hook before optimizer steps: one norm over the gradients of all parameters.

    A gradient scaler unscales the gradients before it calls the optimizer's step, so this is
    right with mixed precision too.
    """

    def clip(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    return clip
