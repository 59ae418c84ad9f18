"""Matched losses of Mask2Former (section 3.3 and supplement): class, mask, dice, on points.

Mask logits are linear in the pixel features, so matching samples features instead of masks, and
only matched queries ever get a mask.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from torch import nn

from ..matching.costs import bce_cost, class_cost, dice_cost
from ..matching.hungarian import hungarian_match
from ..structures import Targets
from .layer_names import layer_suffix
from .masks import bce_loss, dice_loss
from .matched_classes import Match, class_balance, class_loss, mean_target_count
from .points import random_points, sample_at, uncertain_points


class PointSetCriterion(nn.Module):
    """Weighted losses ``loss_ce``, ``loss_mask``, ``loss_dice``; auxiliary layers add ``_i``."""

    class_balance: torch.Tensor

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.75,
        deep_supervision: bool = True,
    ) -> None:
        """``points`` P are compared in each mask; the defaults are the paper's."""
        super().__init__()
        self.weights = {"ce": class_weight, "mask": mask_weight, "dice": dice_weight}
        self.points = points
        self.oversample_ratio = oversample_ratio
        self.importance_ratio = importance_ratio
        self.deep_supervision = deep_supervision
        balance = class_balance(num_classes, no_object_weight)
        self.register_buffer("class_balance", balance, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from ``MODEL.MASK_TRANSFORMER.LOSS``."""
        loss = cfg.MODEL.MASK_TRANSFORMER.LOSS
        return {
            "num_classes": cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES,
            "class_weight": loss.CLASS_WEIGHT,
            "mask_weight": loss.MASK_WEIGHT,
            "dice_weight": loss.DICE_WEIGHT,
            "no_object_weight": loss.NO_OBJECT_WEIGHT,
            "points": loss.POINTS,
            "oversample_ratio": loss.OVERSAMPLE_RATIO,
            "importance_ratio": loss.IMPORTANCE_RATIO,
            "deep_supervision": loss.DEEP_SUPERVISION,
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
        features = mask_features.unbind()  # one gradient for the batch, not one per use
        matches = self.match(predictions, features, targets)
        normaliser = mean_target_count(targets, mask_features.device)
        mask_losses = self._mask_losses(predictions, features, targets, matches)
        losses = {}
        for layer, ((logits, _), pairs) in enumerate(zip(predictions, matches, strict=True)):
            values = {name: value[layer] / normaliser for name, value in mask_losses.items()}
            values["ce"] = class_loss(logits, targets, pairs, self.class_balance)
            suffix = layer_suffix(layer, len(predictions))
            for name, value in values.items():
                losses[f"loss_{name}{suffix}"] = self.weights[name] * value
        return losses

    @torch.no_grad()
    def match(
        self,
        predictions: Sequence[tuple[torch.Tensor, torch.Tensor]],
        features: Sequence[torch.Tensor],
        targets: Sequence[Targets],
    ) -> list[list[Match]]:
        """Pairs per layer and image, by costs on P random points that all masks share."""
        # Sums over all points overflow in half precision.
        with torch.autocast(self.class_balance.device.type, enabled=False):
            by_image = [
                self._match_image([(c[i], e[i]) for c, e in predictions], features[i], targets[i])
                for i in range(len(targets))
            ]
        return [list(layer) for layer in zip(*by_image, strict=True)]

    def _match_image(self, predictions, features, targets) -> list[Match]:
        if not len(targets.labels):
            nothing = torch.zeros(0, dtype=torch.long, device=features.device)
            return [(nothing, nothing)] * len(predictions)
        points = self.matching_points(features.device)
        sampled = sample_at(features[None].float(), points)[0]  # (C, P)
        wanted = sample_at(targets.masks.float().unsqueeze(0), points)[0]  # (n, P)
        pairs = []
        for logits, embedding in predictions:
            masks = embedding.float() @ sampled  # (Q, P)
            cost = (
                self.weights["ce"] * class_cost(logits.float(), targets.labels)
                + self.weights["mask"] * bce_cost(masks, wanted)
                + self.weights["dice"] * dice_cost(masks, wanted)
            )
            pairs.append(hungarian_match(cost, targets.name))
        return pairs

    def matching_points(self, device: torch.device) -> torch.Tensor:
        """Uniform points (1, P, 2), drawn once per image and shared by its masks and layers."""
        return random_points(1, self.points, device)

    def loss_points(self, masks: torch.Tensor) -> torch.Tensor:
        """Importance-sampled points (M, P, 2) of matched masks (M, h, w)."""
        return uncertain_points(masks, self.points, self.oversample_ratio, self.importance_ratio)

    def _mask_losses(
        self, predictions, features, targets: Sequence[Targets], matches: list[list[Match]]
    ) -> dict[str, torch.Tensor]:
        """Sums over the matched masks of each layer, (layers,), computed for all layers at once."""
        parts: dict[str, list[torch.Tensor]] = {"mask": [], "dice": []}
        for image, pixels in enumerate(features):
            pairs = [layer[image] for layer in matches]
            embeds = [
                embedding[image, queries]
                for (_, embedding), (queries, _) in zip(predictions, pairs, strict=True)
            ]
            # With no match a sum over nothing: zero, but part of the graph, as every process
            # must reach every parameter.
            masks = torch.einsum("nc,chw->nhw", torch.cat(embeds), pixels).float()
            points, wanted = self._points_and_truth(masks.detach(), targets[image].masks, pairs)
            logits = sample_at(masks.unsqueeze(1), points).squeeze(1)  # (M, P)
            shape = (len(predictions), -1)
            parts["mask"].append(bce_loss(logits, wanted).view(shape).sum(1))
            parts["dice"].append(dice_loss(logits, wanted).view(shape).sum(1))
        return {name: torch.stack(values).sum(0) for name, values in parts.items()}

    @torch.no_grad()
    def _points_and_truth(self, masks: torch.Tensor, truth: torch.Tensor, pairs: list[Match]):
        """Points (M, P, 2) of matched masks (M, h, w), and ``truth`` (n, H, W) there: (M, P).

        Layer by layer, as oversampling and full-size masks in float are large.
        """
        points, wanted = [], []
        for layer, (_, chosen) in zip(masks.chunk(len(pairs)), pairs, strict=True):
            points.append(self.loss_points(layer))
            # In float, as half precision would move the points.
            wanted.append(sample_at(truth[chosen].float().unsqueeze(1), points[-1]).squeeze(1))
        return torch.cat(points), torch.cat(wanted)
