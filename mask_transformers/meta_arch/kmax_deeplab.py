"""kMaX-DeepLab (Yu et al., ECCV 2022): queries are cluster centres of the pixels.

Backbone, axial pixel decoder, and the decoder whose cross-attention is a step of k-means, in
``transformer_decoders/kmeans.py``. Masks exclude each other: one softmax over the queries says
whose a pixel is (section 3.1).
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch import nn

from ..data.metadata import thing_classes_of
from ..inference.kmax_panoptic import kmax_panoptic_inference
from ..losses.pq_criterion import PQSetCriterion
from ..pixel_decoders.input_features import channels_of
from ..registry import TRANSFORMER_DECODERS
from ..structures import DensePrediction
from .base import padded_size, pixel_parts
from .exclusive_masks import ExclusiveMaskTransformer, named
from .kmax_config import check_kmax
from .semantic_head import SemanticHead


@META_ARCH_REGISTRY.register()
class KMaXDeepLab(ExclusiveMaskTransformer):
    """Dense masks of all queries in every layer, matched by their PQ with the targets."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        pixel_decoder: nn.Module,
        transformer_decoder: nn.Module,
        semantic_head: SemanticHead,
        semantic_features: Sequence[str],
        criterion: PQSetCriterion,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = 32,
        padded_size: Sequence[int] = (),
        tasks: Sequence[str] = ("panoptic",),
        thing_classes: set[int] | None = None,
        thing_threshold: float = 0.7,
        stuff_threshold: float = 0.5,
        pixel_threshold: float = 0.4,
        overlap_threshold: float = 0.8,
        detections_per_image: int = 100,
    ) -> None:
        """``thing_classes`` None: all classes are things; thresholds: ``kmax_panoptic_inference``.

        ``semantic_features``: names of what the semantic head reads, with stride 32, 8 and 4.
        """
        super().__init__(
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            size_divisibility=size_divisibility,
            padded_size=padded_size,
            tasks=tasks,
            thing_classes=thing_classes,
            pixel_threshold=pixel_threshold,
            detections_per_image=detections_per_image,
        )
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.transformer_decoder = transformer_decoder
        self.semantic_head = semantic_head
        self.semantic_features = list(semantic_features)
        self.criterion = criterion
        self.thresholds = (thing_threshold, stuff_threshold, pixel_threshold, overlap_threshold)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from a config; ValueError names the key of a contradictory value."""
        check_kmax(cfg)
        node = cfg.MODEL.MASK_TRANSFORMER
        parts = pixel_parts(cfg)
        fine, middle, _, coarse = node.PIXEL_DECODER.IN_FEATURES
        names = [coarse, middle, fine]
        c32, c8, c4 = (channels_of(parts["backbone"].output_shape(), name) for name in names)
        decoder = TRANSFORMER_DECODERS.get(node.TRANSFORMER_DECODER.NAME)
        return {
            **parts,
            "transformer_decoder": decoder(cfg, parts["pixel_decoder"].level_channels),
            "semantic_head": SemanticHead((c32, c8, c4), node.NUM_CLASSES, dim=node.HIDDEN_DIM),
            "semantic_features": names,
            "criterion": PQSetCriterion(cfg),
            "padded_size": node.PADDED_SIZE,
            "tasks": node.TEST.TASKS,
            "thing_classes": thing_classes_of(cfg),
            "thing_threshold": node.TEST.THING_THRESHOLD,
            "stuff_threshold": node.TEST.STUFF_THRESHOLD,
            "pixel_threshold": node.TEST.PIXEL_THRESHOLD,
            "overlap_threshold": node.TEST.OVERLAP_THRESHOLD,
            "detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    def losses(self, batched_inputs: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Weighted losses ``loss_*`` of a batch."""
        images = self.prepare_images(batched_inputs)
        features = self.backbone(images.tensor)
        predictions = self.transformer_decoder(self.pixel_decoder(features))
        semantic = self.semantic_head(*(features[name] for name in self.semantic_features))
        targets = self.prepare_targets(batched_inputs, padded_size(images))
        return self.criterion(predictions, targets, semantic)

    def raw_outputs(self, images: torch.Tensor) -> dict:
        """Outputs before post-processing for normalised, padded ``images`` (N, 3, H, W).

        ``pred_logits`` (N, Q, K+1), ``pred_masks`` (N, Q, h, w) logits at stride 4 and
        ``pixel_feature`` (N, C, h, w); ``aux_outputs``, one per layer, hold the same, coarser.
        """
        predictions = self.transformer_decoder(self.pixel_decoder(self.backbone(images)))
        *earlier, last = (named(prediction) for prediction in predictions)
        return {**last, "aux_outputs": earlier}

    def predict(self, images: torch.Tensor) -> DensePrediction:
        """The last prediction for normalised, padded ``images`` (N, 3, H, W)."""
        return self.transformer_decoder(self.pixel_decoder(self.backbone(images)))[-1]

    def panoptic(
        self, class_logits: torch.Tensor, masks: torch.Tensor, thing_classes: set[int]
    ) -> tuple[torch.Tensor, list[dict]]:
        """Mask-wise: see ``kmax_panoptic_inference``."""
        return kmax_panoptic_inference(class_logits, masks, thing_classes, *self.thresholds)
