"""Any convolutional or hierarchical model of timm as a Detectron2 backbone."""

import difflib
import logging
from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import freeze_batch_norm_2d
from timm.models import FeatureInfo, PretrainedCfg
from torch import nn
from torch.nn import functional as F

from .timm_weights import load_timm_weights


class TimmBackbone(Backbone):
    """Features of a timm model, under Detectron2's names: ``resN`` has stride 2^N.

    Images of any size are accepted: they are padded by zeros, which is the mean colour after
    normalisation, to a multiple of the coarsest stride, and the features are cropped to
    ceil(H / stride) × ceil(W / stride).

    Pretrained weights expect the normalisation they were trained with, which timm models do not
    share: see ``pixel_mean`` and ``pixel_std`` (RGB, of images in 0..255). It is 127.5 / 127.5
    for ``tf_efficientnet_lite0``; for most others ImageNet's mean and standard deviation.
    """

    @configurable
    def __init__(
        self,
        *,
        name: str,
        weights: str = "",
        out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
        norm: str = "BN",
    ) -> None:
        """Create the timm model ``name``.

        Args:
            name: a model of timm that supports ``features_only``.
            weights: "" for random ones, "imagenet", or the path of a state dict.
            out_features: names among ``res0``, ``res1``, ... that the model has.
            norm: "BN", or "FrozenBN" to fix statistics and affine parameters of batch norms.

        Raises:
            ValueError: unknown ``name``, ``norm`` or feature; weights that do not fit.
            FileNotFoundError, RuntimeError: weights that are not there.
        """
        super().__init__()
        if norm not in ("BN", "FrozenBN"):
            raise ValueError(f"MODEL.TIMM.NORM is {norm!r}; known: 'BN', 'FrozenBN'")
        self.body, indices = _create(name, out_features)
        load_timm_weights(self.body, name, weights)
        _cut_unused_blocks(self.body)
        if norm == "FrozenBN":
            self.body = freeze_batch_norm_2d(self.body)
        info = _info(self.body)
        channels, strides = info.get("num_chs", indices), info.get("reduction", indices)
        # Fine to coarse, which is the order of the timm model's outputs.
        self._out_features = sorted(out_features, key=_level)
        self._out_feature_channels = dict(zip(self._out_features, channels, strict=True))
        self._out_feature_strides = dict(zip(self._out_features, strides, strict=True))
        self._coarsest = max(level["reduction"] for level in info.info)
        self._channels_last = str(getattr(self.body, "output_fmt", "")).endswith("NHWC")
        self._name = name

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec | None = None) -> dict[str, Any]:
        """Arguments of the constructor from ``MODEL.TIMM``."""
        if input_shape is not None and input_shape.channels not in (None, 3):
            raise ValueError(
                "timm backbones take RGB images, but MODEL.PIXEL_MEAN has "
                f"{input_shape.channels} channels"
            )
        node = cfg.MODEL.TIMM
        return {
            "name": node.NAME,
            "weights": node.WEIGHTS,
            "out_features": node.OUT_FEATURES,
            "norm": node.NORM,
        }

    @property
    def pixel_mean(self) -> list[float]:
        """Value for MODEL.PIXEL_MEAN that suits the ImageNet weights (RGB, 0..255)."""
        return [255 * value for value in _pretrained(self._name).mean]

    @property
    def pixel_std(self) -> list[float]:
        """Value for MODEL.PIXEL_STD that suits the ImageNet weights (RGB, 0..255)."""
        return [255 * value for value in _pretrained(self._name).std]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (N, 3, H, W) to features {name: (N, C, ceil(H / s), ceil(W / s))}."""
        height, width = images.shape[-2:]
        padding = (0, -width % self._coarsest, 0, -height % self._coarsest)
        outputs = self._run(F.pad(images, padding) if any(padding) else images)
        if self._channels_last:
            outputs = [output.permute(0, 3, 1, 2) for output in outputs]
        features = {}
        for name, output in zip(self._out_features, outputs, strict=True):
            stride = self._out_feature_strides[name]
            features[name] = output[..., : -(-height // stride), : -(-width // stride)]
        return features

    def _run(self, images: torch.Tensor) -> list[torch.Tensor]:
        try:
            return self.body(images)
        except AssertionError as error:  # timm's checks of the image size
            height, width = images.shape[-2:]
            raise ValueError(
                f"the timm model {self._name} refuses images of {height}×{width} pixels "
                f"(padded): {error}"
            ) from error


def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> TimmBackbone:
    """Build a `TimmBackbone` from ``MODEL.TIMM``; warn of a normalisation it does not expect."""
    backbone = TimmBackbone(cfg, input_shape)
    given = [*cfg.MODEL.PIXEL_MEAN, *cfg.MODEL.PIXEL_STD]
    expected = [*backbone.pixel_mean, *backbone.pixel_std]
    # Rounded and shared constants (127 or 127.5, say) are fine.
    fits = all(abs(a - b) < 2 for a, b in zip(given, expected, strict=True))
    if cfg.MODEL.TIMM.WEIGHTS and not (fits and cfg.INPUT.FORMAT == "RGB"):
        logging.getLogger(__name__).warning(
            "%s was trained with MODEL.PIXEL_MEAN %s, MODEL.PIXEL_STD %s, INPUT.FORMAT RGB",
            cfg.MODEL.TIMM.NAME,
            backbone.pixel_mean,
            backbone.pixel_std,
        )
    return backbone


BACKBONE_REGISTRY.register(build_timm_backbone)


def _level(feature: str) -> int:
    """N of "resN"; ValueError for another name."""
    number = feature.removeprefix("res")
    if feature == number or not number.isdecimal():
        raise ValueError(f"MODEL.TIMM.OUT_FEATURES has {feature!r}; expected names as 'res2'")
    return int(number)


def _create(name: str, out_features: Sequence[str]) -> tuple[nn.Module, list[int]]:
    """The features-only model and the indices, in its ``feature_info``, of ``out_features``."""
    if not timm.is_model(name):
        known = timm.list_models()
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or known[:5]
        raise ValueError(
            f"MODEL.TIMM.NAME is {name!r}, unknown to timm {timm.__version__}; "
            f"close to it: {', '.join(close)}"
        )
    info = _info(_features_only(name))
    # Of several features with one stride, the deepest.
    available = dict(zip(info.reduction(), info.out_indices, strict=True))
    levels = [2 ** _level(feature) for feature in out_features]
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
    if _pretrained(name).fixed_input_size:
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


def _cut_unused_blocks(body: nn.Module) -> None:
    """Leave out what comes after the last feature; most models of timm do so themselves."""
    stage, _, number = _info(body).module_name()[-1].partition(".")
    blocks = getattr(body, stage, None)
    if stage == "blocks" and number.isdecimal() and isinstance(blocks, nn.Sequential):
        body.blocks = blocks[: int(number) + 1]


def _info(body: nn.Module) -> FeatureInfo:
    return cast(FeatureInfo, body.feature_info)


def _pretrained(name: str) -> PretrainedCfg:
    """What timm knows about the pretrained weights, or its defaults."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()
