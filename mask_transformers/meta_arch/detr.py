"""DETR (Carion et al., ECCV 2020): detection as a direct prediction of a set.

A backbone, a transformer encoder over its coarsest feature, a decoder whose queries become objects
all at once, and two heads for their class and box (section 3.2). A third head gives their masks.
"""

from collections.abc import Sequence
from functools import partial

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import box_convert

from ..backbones.frozen_norm import fold_frozen_norms
from ..inference.detection import contiguous_probabilities
from ..layers.mlp import MLP
from ..layers.pixel_grid import padded_grid
from ..layers.transformer_layers import TransformerEncoder
from ..losses.box_criterion import BoxSetCriterion
from ..pixel_decoders.input_features import channels_of
from ..structures import BoxTargets, Scene
from ..transformer_decoders.detr_mask_head import DETRMaskHead
from ..transformer_decoders.standard import QueryDecoder
from .base import MaskTransformer, in_fast_layout, padded_size, require_field
from .detr_config import detr_arguments
from .detr_results import FEW, Wanted, image_results


@META_ARCH_REGISTRY.register()
class DETR(MaskTransformer):
    """Boxes, and with a mask head masks; boxes are cx, cy, w, h relative to the image."""

    class_ids: torch.Tensor | None

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        in_features: Sequence[str],
        encoder: TransformerEncoder,
        decoder: QueryDecoder,
        criterion: BoxSetCriterion,
        num_classes: int,
        dim: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = 0,
        mask_head: DETRMaskHead | None = None,
        freeze_detector: bool = False,
        class_ids: Sequence[int] | None = None,
        tasks: Sequence[str] = ("box",),
        thing_classes: set[int] | None = None,
        object_mask_threshold: float = 0.85,
        detections_per_image: int = 100,
    ) -> None:
        """``class_ids``: what the class head calls each class of the data set; None: the same.

        ``thing_classes`` None: all classes are things.
        """
        super().__init__(
            pixel_mean=pixel_mean, pixel_std=pixel_std, size_divisibility=size_divisibility
        )
        fold_frozen_norms(backbone)
        *fine, self.coarse = in_features
        self.fine = fine[::-1]
        self.backbone = backbone
        self.input_proj = nn.Conv2d(channels_of(backbone.output_shape(), self.coarse), dim, 1)
        self.encoder = encoder
        self.decoder = decoder
        self.class_embed = nn.Linear(dim, num_classes + 1)
        self.box_embed = MLP(dim, dim, 4, 3)
        self.freeze_detector = freeze_detector
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.requires_grad and not freeze_detector)
        self.mask_head = mask_head
        self.criterion = criterion
        ids = None if class_ids is None else torch.tensor(list(class_ids))
        self.register_buffer("class_ids", ids, persistent=False)
        things = set(range(num_classes)) if thing_classes is None else thing_classes
        self.wanted = Wanted(frozenset(tasks), things, object_mask_threshold, detections_per_image)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from a config; ValueError names the key of a contradictory value."""
        return detr_arguments(cfg)

    def detect(self, images: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> Scene:
        """Objects in ``images`` (N, 3, H, W), whose padding begins at their ``sizes``."""
        features = self.backbone(in_fast_layout(images))
        projected = self.input_proj(features[self.coarse])  # (N, C, h, w)
        padded = (images.shape[-2], images.shape[-1])
        grid = padded_grid(projected, projected.shape[1], sizes, padded)
        memory = self.encoder(projected, grid)
        queries = self.decoder(memory, grid)
        predictions = [(self.class_embed(q), self.box_embed(q).float().sigmoid()) for q in queries]
        fine = [features[name] for name in self.fine]
        return Scene(projected, memory, fine, grid, queries[-1], predictions)

    def masks(self, scene: Scene, image: int, index: torch.Tensor) -> torch.Tensor:
        """Mask logits (n, h', w') of the queries ``index`` (n,) of one image."""
        assert self.mask_head is not None
        inside = None if scene.grid.inside is None else scene.grid.inside[image, 0]
        queries = scene.queries[image, index]  # (n, C)
        fine = [level[image] for level in scene.fine]
        return self.mask_head(queries, scene.projected[image], scene.memory[image], fine, inside)

    def raw_outputs(self, images: torch.Tensor) -> dict:
        """Outputs before post-processing for normalised ``images`` (N, 3, H, W) without padding.

        ``pred_logits`` (N, Q, K+1), ``pred_boxes`` (N, Q, 4), with a mask head ``pred_masks``
        (N, Q, H/4, W/4) logits; ``aux_outputs``, one per earlier layer, hold the first two.
        """
        scene = self.detect(images, [(images.shape[-2], images.shape[-1])] * len(images))
        *earlier, last = ({"pred_logits": c, "pred_boxes": b} for c, b in scene.predictions)
        outputs = {**last, "aux_outputs": earlier}
        if self.mask_head is not None:
            every = torch.arange(scene.queries.shape[1], device=images.device)
            masks = [self.masks(scene, image, every) for image in range(len(images))]
            outputs["pred_masks"] = torch.stack(masks)
        return outputs

    def train(self, mode: bool = True) -> "DETR":
        """As in ``nn.Module``, but a frozen detector stays in evaluation mode."""
        super().train(mode)
        if self.freeze_detector:
            for part in (self.backbone, self.encoder, self.decoder):
                part.eval()
        return self

    def losses(self, batched_inputs: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Weighted losses ``loss_*`` of a batch: of the mask head alone on a frozen detector."""
        images = self.prepare_images(batched_inputs)
        padded = padded_size(images)
        targets = [self._box_target(record, padded) for record in batched_inputs]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_detector):
            scene = self.detect(images.tensor, images.image_sizes)
        pairs = self.criterion.match(scene.predictions[-1], targets)
        losses = {}
        if not self.freeze_detector:
            losses = self.criterion(scene.predictions, targets, pairs)
        if self.mask_head is not None:
            # Only matched queries have a loss of their mask.
            masks = [self._trained_masks(scene, i, queries) for i, (queries, _) in enumerate(pairs)]
            losses |= self.criterion.mask_losses(masks, targets, pairs)
        return losses

    def _trained_masks(self, scene: Scene, image: int, index: torch.Tensor) -> torch.Tensor:
        """``masks``, of many queries a few at a time, and once more in the backward pass."""
        if len(index) <= FEW:
            return self.masks(scene, image, index)
        parts = index.split(FEW)
        return torch.cat(
            [checkpoint(self.masks, scene, image, few, use_reentrant=False) for few in parts]
        )

    def _box_target(self, record: dict, padded: tuple[int, int]) -> BoxTargets:
        name, instances = self.instances_of(record)
        require_field(instances, "gt_boxes", name)
        height, width = instances.image_size
        boxes = box_convert(instances.gt_boxes.tensor, "xyxy", "cxcywh")
        labels = instances.gt_classes
        labels = labels if self.class_ids is None else self.class_ids[labels]
        masks = torch.zeros(len(labels), 0, 0, dtype=torch.bool, device=self.device)
        if self.mask_head is not None:
            masks = self.padded_masks(instances, name, padded)
        return BoxTargets(labels, boxes / boxes.new_tensor([width, height] * 2), masks, name)

    def infer(self, batched_inputs: Sequence[dict]) -> list[dict]:
        """Results per image, for images that are padded to one size."""
        images = self.prepare_images(batched_inputs)
        scene = self.detect(images.tensor, images.image_sizes)
        logits, boxes = (part.float() for part in scene.predictions[-1])
        results = []
        for i, (record, size) in enumerate(zip(batched_inputs, images.image_sizes, strict=True)):
            output = (record.get("height", size[0]), record.get("width", size[1]))
            probabilities = contiguous_probabilities(logits[i], self.class_ids)
            masks = partial(self.masks, scene, i)
            sizes = (padded_size(images), size, output)
            results.append(image_results(self.wanted, probabilities, boxes[i], masks, *sizes))
        return results
