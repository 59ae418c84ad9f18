"""MaX-DeepLab (Wang et al., CVPR 2021): masks from an image, end to end, by a dual path.

There is no transformer decoder behind a backbone: the memory goes through the backbone beside the
pixels, and through stages of the decoder with stride 16 (``transformer_decoders/dual_path.py``).
What is left is a backbone, a stacked decoder and one predictor. Masks exclude each other: one
softmax over the slots of the memory says whose a pixel is.

Losses are those that kMaX-DeepLab took over, but for what ``losses/max_criterion.py`` says.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from torch import nn

from ..backbones.max_resnet import DESCENT, HOURGLASS, MaXResNet, stage_builder
from ..data.metadata import thing_classes_of
from ..inference.max_panoptic import max_panoptic_inference
from ..layers.conv_norm import LinearNorm
from ..losses.max_criterion import MaXSetCriterion
from ..structures import DensePrediction
from ..transformer_decoders.mask_predictor import MaskPredictor
from ..transformer_decoders.stacked_decoder import StackedDecoder
from .base import padded_size
from .exclusive_masks import ExclusiveMaskTransformer, named
from .max_config import PanopticInference, check_max, panoptic_inference, semantic_head
from .semantic_head import DecodedSemanticHead, SemanticHead


@META_ARCH_REGISTRY.register()
class MaXDeepLab(ExclusiveMaskTransformer):
    """One prediction of dense masks, matched by their PQ with the targets."""

    @configurable
    def __init__(
        self,
        *,
        backbone: MaXResNet,
        decoder: StackedDecoder,
        semantic_head: SemanticHead | DecodedSemanticHead,
        criterion: MaXSetCriterion,
        num_classes: int,
        queries: int,
        memory_dim: int,
        decoder_channels: int,
        mask_dim: int = 128,
        mask_scale: float = 0.1,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = 16,
        padded_size: Sequence[int] = (),
        tasks: Sequence[str] = ("panoptic",),
        thing_classes: set[int] | None = None,
        panoptic_inference: PanopticInference = max_panoptic_inference,
        pixel_threshold: float = 0.4,
        detections_per_image: int = 100,
    ) -> None:
        """``thing_classes`` None: all classes are things. ``decoder_channels`` at stride 4.

        ``panoptic_inference``: class logits (Q, K+1), mask logits (Q, H, W) and thing classes to
        segments, pixel- or mask-wise.
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
        self.memory = nn.Embedding(memory_dim, queries)  # one column for each slot
        nn.init.trunc_normal_(self.memory.weight)
        self.backbone = backbone
        self.decoder = decoder
        self.class_projection = LinearNorm(memory_dim, memory_dim, activation=F.relu)
        self.mask_projection = LinearNorm(memory_dim, memory_dim, activation=F.relu)
        self.predictor = MaskPredictor(
            decoder_channels,
            memory_dim,
            num_classes,
            mask_dim=mask_dim,
            mask_scale=mask_scale,
            activation=F.relu,
        )
        self.semantic_head = semantic_head
        self.criterion = criterion
        self.panoptic_inference = panoptic_inference

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from a config; ValueError names the key of a contradictory value."""
        check_max(cfg)
        node, part = cfg.MODEL.MASK_TRANSFORMER, cfg.MODEL.MAX_RESNET
        builder = stage_builder(cfg)
        coarse = builder.channels("res5")
        return {
            "backbone": build_backbone(cfg),
            "decoder": StackedDecoder(
                builder.stage("res5", coarse, part.DECODER_BLOCKS),
                builder.steps(HOURGLASS * part.DECODER_STACKS + DESCENT, part.DECODER_BLOCKS),
            ),
            "semantic_head": semantic_head(builder, part.DECODER_STACKS > 0, node.NUM_CLASSES),
            "criterion": MaXSetCriterion(cfg),
            "num_classes": node.NUM_CLASSES,
            "queries": node.QUERIES,
            "memory_dim": node.HIDDEN_DIM,
            "decoder_channels": builder.channels("res2"),
            "mask_dim": node.MASK_DIM,
            "mask_scale": node.TRANSFORMER_DECODER.MASK_SCALE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "size_divisibility": node.SIZE_DIVISIBILITY,
            "padded_size": node.PADDED_SIZE,
            "tasks": node.TEST.TASKS,
            "thing_classes": thing_classes_of(cfg),
            "panoptic_inference": panoptic_inference(cfg),
            "pixel_threshold": node.TEST.PIXEL_THRESHOLD,
            "detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    def losses(self, batched_inputs: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Weighted losses ``loss_*`` of a batch."""
        images = self.prepare_images(batched_inputs)
        prediction, semantic = self._predict(images.tensor)
        targets = self.prepare_targets(batched_inputs, padded_size(images))
        return self.criterion([prediction], targets, semantic)

    def raw_outputs(self, images: torch.Tensor) -> dict:
        """Outputs before post-processing for normalised, padded ``images`` (N, 3, H, W).

        ``pred_logits`` (N, Q, K+1), and at stride 4 ``pred_masks`` (N, Q, h, w) logits,
        ``pixel_feature`` (N, C, h, w) and ``semantic`` (N, K+1, h, w) logits of the auxiliary
        head. There are no ``aux_outputs``.
        """
        prediction, semantic = self._predict(images)
        return {**named(prediction), "semantic": semantic, "aux_outputs": []}

    def predict(self, images: torch.Tensor) -> DensePrediction:
        """The prediction for normalised, padded ``images`` (N, 3, H, W)."""
        return self._decode(images)[0]

    def _predict(self, images: torch.Tensor) -> tuple[DensePrediction, torch.Tensor]:
        """The prediction and the logits of the semantic head."""
        prediction, seen = self._decode(images)
        return prediction, self.semantic_head(*seen)

    def _decode(self, images: torch.Tensor) -> tuple[DensePrediction, list[torch.Tensor]]:
        """The prediction and what the semantic head looks at.

        That is not what masks are made of: the backbone's features, or the first map with stride 4
        that a decoder with several makes (as the paper has it for L; names and shapes of its
        published checkpoint fit others, too).
        """
        memory = self.memory.weight.expand(len(images), -1, -1)  # (N, D, Q)
        pixels, memory, features = self.backbone(images, memory)
        seen = [F.relu(x) for x in (pixels, features[8], features[4])]
        decoded, memory = self.decoder(pixels, memory, features)
        if len(decoded) > 1:
            seen = [F.relu(decoded[0])]
        class_query, mask_query = self.class_projection(memory), self.mask_projection(memory)
        return self.predictor(class_query, mask_query, F.relu(decoded[-1])), seen

    def panoptic(
        self, class_logits: torch.Tensor, masks: torch.Tensor, thing_classes: set[int]
    ) -> tuple[torch.Tensor, list[dict]]:
        """Pixel-wise or mask-wise, as chosen."""
        return self.panoptic_inference(class_logits, masks, thing_classes)
