"""Matched losses of MaskFormer (section 3.2 and 4.1): class, focal and dice, on whole masks.

Matching compares at the resolution of the predictions; the loss upsamples the masks of the
matched queries, and only those, to the resolution of the ground truth.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import nn

from ..heads import predict_masks
from ..matching.costs import class_cost, dice_cost, focal_cost
from ..matching.fixed import fixed_match
from ..matching.hungarian import hungarian_match
from ..structures import Targets
from .layer_names import layer_suffix
from .masks import upsampled_mask_losses
from .matched_classes import Match, class_balance, class_loss, mean_target_count


class MaskSetCriterion(nn.Module):
    """Weighted losses ``loss_ce``, ``loss_mask``, ``loss_dice``; auxiliary layers add ``_i``."""

    class_balance: torch.Tensor

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        class_weight: float = 1.0,
        mask_weight: float = 20.0,
        dice_weight: float = 1.0,
        no_object_weight: float = 0.1,
        fixed_matching: bool = False,
        deep_supervision: bool = True,
    ) -> None:
        """The defaults are the paper's; ``fixed_matching`` is its ablation."""
        super().__init__()
        self.weights = {"ce": class_weight, "mask": mask_weight, "dice": dice_weight}
        self.fixed_matching = fixed_matching
        self.deep_supervision = deep_supervision
        balance = class_balance(num_classes, no_object_weight)
        self.register_buffer("class_balance", balance, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from ``MODEL.MASK_TRANSFORMER``."""
        node = cfg.MODEL.MASK_TRANSFORMER
        return {
            "num_classes": node.NUM_CLASSES,
            "class_weight": node.LOSS.CLASS_WEIGHT,
            "mask_weight": node.LOSS.MASK_WEIGHT,
            "dice_weight": node.LOSS.DICE_WEIGHT,
            "no_object_weight": node.LOSS.NO_OBJECT_WEIGHT,
            "fixed_matching": node.MATCHER == "fixed",
            "deep_supervision": node.LOSS.DEEP_SUPERVISION,
        }

    def forward(
        self,
        predictions: Sequence[tuple[torch.Tensor, torch.Tensor]],
        mask_features: torch.Tensor,
        targets: Sequence[Targets],
    ) -> dict[str, torch.Tensor]:
        """Losses of every layer.

        predictions: per layer, the last one last, class logits (N, Q, K+1) and embeddings
        (N, Q, C); mask_features (N, C, h, w); targets: one per image, masks of one size (H, W).
        """
        if not self.deep_supervision:
            predictions = predictions[-1:]
        small = [_shrunk(target.masks, mask_features.shape[-2:]) for target in targets]
        normaliser = mean_target_count(targets, mask_features.device)
        losses = {}
        for layer, (logits, embedding) in enumerate(predictions):
            pairs = self.match(logits, embedding, mask_features, targets, small)
            values = _mask_losses(embedding, mask_features, targets, pairs)
            values = {name: value / normaliser for name, value in values.items()}
            values["ce"] = class_loss(logits, targets, pairs, self.class_balance)
            suffix = layer_suffix(layer, len(predictions))
            for name, value in values.items():
                losses[f"loss_{name}{suffix}"] = self.weights[name] * value
        return losses

    @torch.no_grad()
    def match(
        self,
        logits: torch.Tensor,
        embedding: torch.Tensor,
        mask_features: torch.Tensor,
        targets: Sequence[Targets],
        small: Sequence[torch.Tensor],
    ) -> list[Match]:
        """Pairs per image of one layer; ``small`` are the target masks, flat, (n, h·w)."""
        if self.fixed_matching:
            return [fixed_match(logits.shape[1], target) for target in targets]
        # Sums over all pixels overflow in half precision.
        with torch.autocast(mask_features.device.type, enabled=False):
            return [
                self._match_image(
                    logits[i].float(), embedding[i].float(), mask_features[i].float(), target, mask
                )
                for i, (target, mask) in enumerate(zip(targets, small, strict=True))
            ]

    def _match_image(self, logits, embedding, features, target: Targets, small) -> Match:
        masks = embedding @ features.flatten(1)  # (Q, h·w)
        cost = (
            self.weights["ce"] * class_cost(logits, target.labels)
            + self.weights["mask"] * focal_cost(masks, small)
            + self.weights["dice"] * dice_cost(masks, small)
        )
        return hungarian_match(cost, target.name)


def _shrunk(masks: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Masks (n, H, W) to (n, h·w) in {0, 1}, by the nearest pixel, as published."""
    small = F.interpolate(masks[:, None].to(torch.uint8), size=tuple(size), mode="nearest")
    return small.flatten(1).float()


def _mask_losses(
    embedding: torch.Tensor,
    mask_features: torch.Tensor,
    targets: Sequence[Targets],
    pairs: Sequence[Match],
) -> dict[str, torch.Tensor]:
    """Sums of the focal and dice losses over all matched masks of one layer."""
    focal, dice = [], []
    for image, (queries, chosen) in enumerate(pairs):
        # Without a match these are sums over nothing: zero, but part of the graph, as every
        # process must reach every parameter.
        logits = predict_masks(embedding[image : image + 1, queries], mask_features[image, None])
        sums = upsampled_mask_losses(logits[0], targets[image].masks[chosen])
        focal.append(sums[0])
        dice.append(sums[1])
    return {"mask": torch.stack(focal).sum(), "dice": torch.stack(dice).sum()}
