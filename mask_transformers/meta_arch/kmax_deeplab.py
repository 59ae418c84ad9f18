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

from ..config_check import ROOT
from ..data.metadata import thing_classes_of
from ..inference.instance import kmax_instance_inference
from ..inference.kmax_panoptic import kmax_panoptic_inference
from ..inference.semantic import kmax_semantic_inference
from ..layers.axial_attention import MAX_LENGTH
from ..layers.conv_norm import resize_aligned
from ..losses.pq_criterion import PQSetCriterion
from ..pixel_decoders.axial import AXIAL_STRIDE
from ..pixel_decoders.input_features import channels_of
from ..registry import TRANSFORMER_DECODERS
from ..structures import DensePrediction
from .base import MaskTransformer, padded_size, pixel_parts, resize_to_output
from .kmax_config import check_kmax
from .semantic_head import SemanticHead

LONGEST_SIDE = AXIAL_STRIDE * (MAX_LENGTH - 1) + 1  # pixels, of a padded image


@META_ARCH_REGISTRY.register()
class KMaXDeepLab(MaskTransformer):
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
            pixel_mean=pixel_mean, pixel_std=pixel_std, size_divisibility=size_divisibility
        )
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.transformer_decoder = transformer_decoder
        self.semantic_head = semantic_head
        self.semantic_features = list(semantic_features)
        self.criterion = criterion
        self.padded_size = tuple(padded_size)
        self.tasks = tuple(tasks)
        self.thing_classes = thing_classes
        self.thresholds = (thing_threshold, stuff_threshold, pixel_threshold, overlap_threshold)
        self.detections_per_image = detections_per_image

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

    def padded_image_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """One pixel more than a multiple of the divisibility, so that corners of all maps meet.

        ``padded_size`` where that is set and large enough. ValueError: axial attention, whose
        tables of positions end somewhere, cannot read an image of that size.
        """
        if self.padded_size and size[0] <= self.padded_size[0] and size[1] <= self.padded_size[1]:
            padded = self.padded_size[0], self.padded_size[1]
        else:
            height, width = super().padded_image_size((max(size[0] - 1, 1), max(size[1] - 1, 1)))
            padded = height + 1, width + 1
        if max(padded) > LONGEST_SIDE:
            raise ValueError(self._too_large(size, padded))
        return padded

    def _too_large(self, size: tuple[int, int], padded: tuple[int, int]) -> str:
        step = max(self.size_divisibility, 1)
        limit = (LONGEST_SIDE - 1) // step * step + 1
        return (
            f"an image of {size[0]} x {size[1]} pixels is padded to {padded[0]} x {padded[1]}, but "
            f"axial attention reaches {MAX_LENGTH} positions at stride {AXIAL_STRIDE}: no side may "
            f"be longer than {limit} pixels (see INPUT.MAX_SIZE_TEST and {ROOT}.PADDED_SIZE)"
        )

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
        *earlier, last = (_named(prediction) for prediction in predictions)
        return {**last, "aux_outputs": earlier}

    def infer(self, batched_inputs: Sequence[dict]) -> list[dict]:
        """Results per image, for images that are padded to one size."""
        images = self.prepare_images(batched_inputs)
        last = self.transformer_decoder(self.pixel_decoder(self.backbone(images.tensor)))[-1]
        padded = padded_size(images)
        results = []
        for i, (record, size) in enumerate(zip(batched_inputs, images.image_sizes, strict=True)):
            output = (record.get("height", size[0]), record.get("width", size[1]))
            masks = resize_aligned(last.mask_logits[i : i + 1].float(), padded)[0]
            masks = resize_to_output(masks, padded, (size[0], size[1]), output)
            results.append(self._results(last.class_logits[i].float(), masks))
        return results

    def _results(self, class_logits: torch.Tensor, masks: torch.Tensor) -> dict:
        results: dict = {}
        things = self.thing_classes
        if "semantic" in self.tasks:
            results["sem_seg"] = kmax_semantic_inference(class_logits, masks)
        if "panoptic" in self.tasks:
            every = set(range(class_logits.shape[-1] - 1))
            results["panoptic_seg"] = kmax_panoptic_inference(
                class_logits, masks, every if things is None else things, *self.thresholds
            )
        if "instance" in self.tasks or "box" in self.tasks:
            results["instances"] = kmax_instance_inference(
                class_logits, masks, self.detections_per_image, things, self.thresholds[2]
            )
        return results


def _named(prediction: DensePrediction) -> dict[str, torch.Tensor]:
    return {
        "pred_logits": prediction.class_logits,
        "pred_masks": prediction.mask_logits,
        "pixel_feature": prediction.pixel_features,
    }
