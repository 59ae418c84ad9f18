"""The per-pixel baselines of MaskFormer (section 4.1): a class for every pixel, no queries.

PerPixelBaseline classifies the mask features by a 1×1 convolution; PerPixelBaseline+ has the
transformer decoder of MaskFormer, whose K mask embeddings take the place of the weights of that
convolution.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch import nn

from ..backbones.frozen_norm import fold_frozen_norms
from ..config_check import check_config, check_masks
from ..heads import predict_masks
from ..layers.convolution import biased_conv
from ..layers.mlp import MLP
from ..losses.layer_names import layer_suffix
from ..structures import PixelFeatures, Targets
from ..transformer_decoders.standard import QueryDecoder, query_decoder
from .base import MaskTransformer, in_fast_layout, padded_size, pixel_parts, resize_to_output

IGNORED = -1  # label of pixels that no target covers


class PixelClassifier(nn.Module):
    """PerPixelBaseline: one linear map for all pixels."""

    def __init__(self, num_classes: int, mask_dim: int) -> None:
        super().__init__()
        self.predictor = biased_conv(mask_dim, num_classes, 1)

    def forward(self, pixels: PixelFeatures) -> list[torch.Tensor]:
        """Class logits (N, K, h, w), as the only prediction."""
        return [self.predictor(pixels.mask_features)]


class QueryClassifier(nn.Module):
    """PerPixelBaseline+: the decoder's query i gives the weights of class i."""

    def __init__(self, decoder: QueryDecoder, dim: int, mask_dim: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.mask_embed = MLP(dim, dim, mask_dim, 3)

    def forward(self, pixels: PixelFeatures) -> list[torch.Tensor]:
        """Class logits (N, K, h, w) of every layer, the last one last."""
        queries = self.decoder(pixels.levels[0])
        return [predict_masks(self.mask_embed(query), pixels.mask_features) for query in queries]


@META_ARCH_REGISTRY.register()
class PerPixelBaseline(MaskTransformer):
    """Backbone, pixel decoder, classifier; cross entropy over pixels; semantic results only."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        pixel_decoder: nn.Module,
        classifier: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = 32,
        deep_supervision: bool = True,
    ) -> None:
        """``classifier``: a ``PixelClassifier`` or a ``QueryClassifier``."""
        super().__init__(
            pixel_mean=pixel_mean, pixel_std=pixel_std, size_divisibility=size_divisibility
        )
        fold_frozen_norms(backbone)
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.classifier = classifier
        self.deep_supervision = deep_supervision

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from a config; TRANSFORMER_DECODER.NAME "" is the baseline without the +.

        There are as many queries as classes, whatever QUERIES says. ValueError
        names the key of a contradictory value.
        """
        check_masks(cfg)
        check_config(cfg)
        node = cfg.MODEL.MASK_TRANSFORMER
        if list(node.TEST.TASKS) != ["semantic"]:
            raise ValueError("MODEL.MASK_TRANSFORMER.TEST.TASKS of PerPixelBaseline: ['semantic']")
        parts = pixel_parts(cfg)
        return {
            **parts,
            "classifier": _classifier(cfg, parts["pixel_decoder"].level_channels[0]),
            "deep_supervision": node.LOSS.DEEP_SUPERVISION,
        }

    def losses(self, batched_inputs: Sequence[dict]) -> dict[str, torch.Tensor]:
        """``loss_sem_seg``, and ``_i`` of earlier layers."""
        images = self.prepare_images(batched_inputs)
        padded = padded_size(images)
        targets = self.prepare_targets(batched_inputs, padded)
        return self._pixel_losses(self._predict(images.tensor), targets)

    def infer(self, batched_inputs: Sequence[dict]) -> list[dict]:
        """``sem_seg`` holds logits (K, H, W), not probabilities."""
        images = self.prepare_images(batched_inputs)
        padded = padded_size(images)
        predictions = self._predict(images.tensor)
        results = []
        for record, logits, size in zip(
            batched_inputs, predictions[-1], images.image_sizes, strict=True
        ):
            output = (record.get("height", size[0]), record.get("width", size[1]))
            results.append({"sem_seg": resize_to_output(logits.float(), padded, size, output)})
        return results

    def raw_outputs(self, images: torch.Tensor) -> dict:
        """Class logits of pixels for normalised, padded ``images`` (N, 3, H, W).

        ``pred_masks`` (N, K, H/4, W/4); ``aux_outputs``, one per earlier layer, hold the same.
        """
        predictions = self._predict(images)
        return {
            "pred_masks": predictions[-1],
            "aux_outputs": [{"pred_masks": logits} for logits in predictions[:-1]],
        }

    def _predict(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.classifier(self.pixel_decoder(self.backbone(in_fast_layout(images))))

    def _pixel_losses(
        self, predictions: list[torch.Tensor], targets: Sequence[Targets]
    ) -> dict[str, torch.Tensor]:
        labels = torch.stack([_label_map(target) for target in targets])  # (N, H, W)
        supervised = predictions if self.deep_supervision else predictions[-1:]
        losses = {}
        for layer, logits in enumerate(supervised):
            losses[f"loss_sem_seg{layer_suffix(layer, len(supervised))}"] = _pixel_loss(
                logits, labels
            )
        return losses


def _pixel_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of (N, K, h, w), resized to the labels (N, H, W), where they know."""
    size = labels.shape[-2:]
    logits = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def _label_map(target: Targets) -> torch.Tensor:
    """Class of every pixel (H, W), the last mask on top."""
    labels = target.labels.new_full(target.masks.shape[1:], IGNORED)
    for label, mask in zip(target.labels, target.masks, strict=True):
        labels[mask] = label
    return labels


def _classifier(cfg: CfgNode, in_channels: int) -> nn.Module:
    node = cfg.MODEL.MASK_TRANSFORMER
    name = node.TRANSFORMER_DECODER.NAME
    if not name:
        return PixelClassifier(node.NUM_CLASSES, node.MASK_DIM)
    if name != "StandardDecoder":
        raise ValueError(
            "MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.NAME of PerPixelBaseline must be '' or "
            f"'StandardDecoder', not {name!r}"
        )
    decoder = query_decoder(cfg, in_channels, node.NUM_CLASSES)
    return QueryClassifier(decoder, node.HIDDEN_DIM, node.MASK_DIM)
