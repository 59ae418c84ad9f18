"""Any convolutional or hierarchical model of timm as a Detectron2 backbone."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import freeze_batch_norm_2d
from torch.nn import functional as F

from .timm_features import (
    create_features,
    cut_unused_blocks,
    feature_info,
    level_of,
    pretrained,
)
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
        self.body, indices = create_features(name, out_features)
        load_timm_weights(self.body, name, weights)
        cut_unused_blocks(self.body)
        if norm == "FrozenBN":
            self.body = freeze_batch_norm_2d(self.body)
        info = feature_info(self.body)
        channels, strides = info.get("num_chs", indices), info.get("reduction", indices)
        # Fine to coarse, which is the order of the timm model's outputs.
        self._out_features = sorted(out_features, key=level_of)
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
        return [255 * value for value in pretrained(self._name).mean]

    @property
    def pixel_std(self) -> list[float]:
        """Value for MODEL.PIXEL_STD that suits the ImageNet weights (RGB, 0..255)."""
        return [255 * value for value in pretrained(self._name).std]

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
