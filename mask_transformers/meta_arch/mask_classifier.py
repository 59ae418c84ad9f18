"""Mask classification (MaskFormer, section 3): pairs of a class and a mask, three kinds of result.

What MaskFormer and Mask2Former have in common: the wiring of the parts and inference.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import Backbone
from torch import nn

from ..backbones.frozen_norm import fold_frozen_norms
from ..config_check import check_config, check_masks
from ..data.metadata import thing_classes_of
from ..inference.instance import instance_inference, top_instances
from ..inference.panoptic import confident_queries, panoptic_inference
from ..inference.semantic import semantic_inference
from ..registry import TRANSFORMER_DECODERS
from ..structures import PixelFeatures
from .base import MaskTransformer, padded_size, pixel_parts, resize_to_output


class MaskClassifier(MaskTransformer):
    """Backbone, pixel decoder, transformer decoder, criterion; see the subclasses."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        pixel_decoder: nn.Module,
        transformer_decoder: nn.Module,
        criterion: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = 32,
        tasks: Sequence[str] = ("panoptic",),
        thing_classes: set[int] | None = None,
        object_mask_threshold: float = 0.8,
        overlap_threshold: float = 0.8,
        pixel_threshold: float = 0.5,
        detections_per_image: int = 100,
    ) -> None:
        """``thing_classes`` None: all classes are things; thresholds: ``panoptic_inference``."""
        super().__init__(
            pixel_mean=pixel_mean, pixel_std=pixel_std, size_divisibility=size_divisibility
        )
        fold_frozen_norms(backbone)
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.transformer_decoder = transformer_decoder
        self.criterion = criterion
        self.tasks = tuple(tasks)
        self.thing_classes = thing_classes
        self.object_mask_threshold = object_mask_threshold
        self.overlap_threshold = overlap_threshold
        self.pixel_threshold = pixel_threshold
        self.detections_per_image = detections_per_image

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments but the criterion; ValueError names the key of a contradictory value."""
        check_masks(cfg)
        check_config(cfg)
        node = cfg.MODEL.MASK_TRANSFORMER
        parts = pixel_parts(cfg)
        transformer_decoder = TRANSFORMER_DECODERS.get(node.TRANSFORMER_DECODER.NAME)
        return {
            **parts,
            "transformer_decoder": transformer_decoder(cfg, parts["pixel_decoder"].level_channels),
            "tasks": node.TEST.TASKS,
            "thing_classes": thing_classes_of(cfg),
            "object_mask_threshold": node.TEST.OBJECT_MASK_THRESHOLD,
            "overlap_threshold": node.TEST.OVERLAP_THRESHOLD,
            "detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @property
    def finds_instances(self) -> bool:
        """Whether results hold ``instances``: their masks, or their masks' boxes, are asked for."""
        return "instance" in self.tasks or "box" in self.tasks

    def losses(self, batched_inputs: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Weighted losses ``loss_*`` of a batch."""
        images = self.prepare_images(batched_inputs)
        pixels, predictions = self._network(images.tensor)
        padded = padded_size(images)
        targets = self.prepare_targets(batched_inputs, padded)
        return self.criterion(predictions, pixels.mask_features, targets)

    def infer(self, batched_inputs: Sequence[dict]) -> list[dict]:
        """Results per image, for images that are padded to one size."""
        images = self.prepare_images(batched_inputs)
        pixels, predictions = self._network(images.tensor)
        class_logits, embeddings = predictions[-1]
        return [
            self._infer(record, class_logits[i], embeddings[i], pixels.image(i), images, size)
            for i, (record, size) in enumerate(zip(batched_inputs, images.image_sizes, strict=True))
        ]

    def raw_outputs(self, images: torch.Tensor) -> dict:
        """Outputs before post-processing for normalised, padded ``images`` (N, 3, H, W).

        ``pred_logits`` (N, Q, K+1), ``pred_masks`` (N, Q, H/4, W/4) logits; ``aux_outputs``, one
        per earlier prediction, hold ``pred_logits`` and ``mask_embeddings``
        (N, Q, C), whose masks are ``pixel_features.predict_masks(mask_embeddings)``.
        """
        pixels, predictions = self._network(images)
        logits, embeddings = predictions[-1]
        return {
            "pred_logits": logits,
            "pred_masks": pixels.predict_masks(embeddings),
            "pixel_features": pixels,
            "aux_outputs": [{"pred_logits": c, "mask_embeddings": e} for c, e in predictions[:-1]],
        }

    def _network(
        self, images: torch.Tensor
    ) -> tuple[PixelFeatures, list[tuple[torch.Tensor, torch.Tensor]]]:
        pixels = self.pixel_decoder(self.backbone(images))
        return pixels, self.transformer_decoder(pixels)

    def _infer(self, record, class_logits, embeddings, pixels, images, size) -> dict:
        output = (record.get("height", size[0]), record.get("width", size[1]))
        padded = padded_size(images)
        used = self._used_queries(class_logits)
        masks = pixels.predict_masks(embeddings[None, used])[0].float()
        logits = class_logits[used].float()
        if self.tasks == ("semantic",):
            # Here the official code resizes the scores of the classes, not the masks.
            scores = semantic_inference(logits, resize_to_output(masks, padded, size, size))
            return {"sem_seg": resize_to_output(scores, size, size, output)}
        return self._results(logits, resize_to_output(masks, padded, size, output))

    def _used_queries(self, class_logits: torch.Tensor) -> torch.Tensor:
        """Indices of the queries whose masks can matter, so that only these are upsampled."""
        used = torch.zeros(len(class_logits), dtype=torch.bool, device=class_logits.device)
        if "semantic" in self.tasks:
            used[:] = True
        if "panoptic" in self.tasks:
            used[confident_queries(class_logits, self.object_mask_threshold)] = True
        if self.finds_instances:
            used[top_instances(class_logits, self.detections_per_image)[1]] = True
        return used.nonzero().squeeze(1)

    def _results(self, class_logits: torch.Tensor, masks: torch.Tensor) -> dict:
        results: dict = {}
        if "semantic" in self.tasks:
            results["sem_seg"] = semantic_inference(class_logits, masks)
        if "panoptic" in self.tasks:
            things = self.thing_classes
            results["panoptic_seg"] = panoptic_inference(
                class_logits,
                masks,
                set(range(class_logits.shape[-1] - 1)) if things is None else things,
                self.object_mask_threshold,
                self.overlap_threshold,
                self.pixel_threshold,
            )
        if self.finds_instances:
            results["instances"] = instance_inference(
                class_logits, masks, self.detections_per_image, self.thing_classes
            )
        return results
