"""Features-only models of timm, by the strides of their features."""

import difflib
from collections.abc import Sequence
from typing import Any, cast

import timm
from timm.models import FeatureInfo, PretrainedCfg
from torch import nn


def level_of(feature: str) -> int:
    """N of "resN"; ValueError for another name."""
    number = feature.removeprefix("res")
    if feature == number or not number.isdecimal():
        raise ValueError(f"MODEL.TIMM.OUT_FEATURES has {feature!r}; expected names as 'res2'")
    return int(number)


def create_features(name: str, out_features: Sequence[str]) -> tuple[nn.Module, list[int]]:
    """The features-only model and the indices, in its ``feature_info``, of ``out_features``."""
    if not timm.is_model(name):
        known = timm.list_models()
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or known[:5]
        raise ValueError(
            f"MODEL.TIMM.NAME is {name!r}, unknown to timm {timm.__version__}; "
            f"close to it: {', '.join(close)}"
        )
    info = feature_info(_features_only(name))
    # Of several features with one stride, the deepest.
    available = dict(zip(info.reduction(), info.out_indices, strict=True))
    levels = [2 ** level_of(feature) for feature in out_features]
    if not levels or len(set(levels)) < len(levels) or not set(levels) <= set(available):
        names = [f"res{s.bit_length() - 1}" for s in available if s & (s - 1) == 0]
        raise ValueError(
            f"MODEL.TIMM.OUT_FEATURES is {list(out_features)}; expected one or more, each once, "
            f"of those that {name} has: {', '.join(names) or 'none with a stride of 2^N'}"
        )
    indices = [available[stride] for stride in sorted(levels)]
    return _features_only(name, tuple(indices)), indices


def _features_only(name: str, out_indices: tuple[int, ...] | None = None) -> nn.Module:
    chosen: dict[str, Any] = {} if out_indices is None else {"out_indices": out_indices}
    options: list[dict[str, Any]] = [{}]
    if pretrained(name).fixed_input_size:
        # What lifts the fixed size depends on the family: windowed models, plain transformers.
        options = [{"strict_img_size": False}, {"dynamic_img_size": True}, {}]
    for option in options:
        try:
            return timm.create_model(name, features_only=True, **chosen, **option)
        except TypeError as error:  # an argument that the family does not know
            problem = error
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            raise ValueError(f"MODEL.TIMM.NAME {name!r} has no features: {error}") from error
    raise ValueError(f"MODEL.TIMM.NAME {name!r} cannot be built: {problem}") from problem


def cut_unused_blocks(body: nn.Module) -> None:
    """Leave out what comes after the last feature; most models of timm do so themselves."""
    stage, _, number = feature_info(body).module_name()[-1].partition(".")
    blocks = getattr(body, stage, None)
    if stage == "blocks" and number.isdecimal() and isinstance(blocks, nn.Sequential):
        body.blocks = blocks[: int(number) + 1]


def feature_info(body: nn.Module) -> FeatureInfo:
    """Strides, channels and modules of the features of a features-only model."""
    return cast(FeatureInfo, body.feature_info)


def pretrained(name: str) -> PretrainedCfg:
    """What timm knows about the pretrained weights, or its defaults."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()
