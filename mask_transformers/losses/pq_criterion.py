"""Losses of MaX-DeepLab ("PQ-style loss", "auxiliary losses"), which kMaX-DeepLab shares.

The PQ of a prediction is a product of how well its class and its mask are recognised. Each factor
is learned by a loss that the other one weighs:

    α (1/Q) Σ_matched  dice · CE(class)  +  (1-α) (1/Q) Σ_others  void share · CE(no-object)
    α (1/Q) Σ_matched  probability · (1 - dice)

Other queries need to become no-object only as far as their masks lie in void: masks exclude each
other, and what they take from a target is held against them there. Pixels in void are left out of
everything else. Auxiliary layers take matching and weights from the last one, and are resized to
it. All losses are means over images, and so over processes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import nn

from ..layers.conv_norm import resize_aligned
from ..structures import DensePrediction, Targets
from .exclusive_masks import mask_id_and_dice
from .instance_discrimination import instance_discrimination_loss
from .layer_names import layer_suffix
from .pixel_sampling import class_areas, gumbel_top_k, resized_values
from .pq_match import PQMatch, pq_match
from .segments import Segments, partition


class PQSetCriterion(nn.Module):
    """Weighted losses ``loss_ce``, ``loss_mask_id``, ``loss_dice``, ``loss_pixel`` (instance
    discrimination), auxiliary layers ``_i``; ``loss_semantic`` of the auxiliary head.
    """

    @configurable
    def __init__(
        self,
        *,
        class_weight: float = 3.0,
        dice_weight: float = 3.0,
        mask_id_weight: float = 0.3,
        instance_weight: float = 1.0,
        semantic_weight: float = 1.0,
        alpha: float = 0.75,
        temperature: float = 0.3,
        points: int = 4096,
        instance_exponent: float = 1.5,
        semantic_exponent: float = 2.0,
        background: bool = False,
    ) -> None:
        """The defaults are those of kMaX-DeepLab.

        ``alpha`` weighs matched queries against others, ``temperature`` τ divides similarities.
        Instance discrimination and the semantic loss look at up to ``points`` pixels of an image,
        drawn by (1 / area of its target or class) to the power of the exponent. ``background``:
        pixels without a target are background, and not void.
        """
        super().__init__()
        self.weights = {
            "ce": class_weight,
            "mask_id": mask_id_weight,
            "dice": dice_weight,
            "pixel": instance_weight,
            "semantic": semantic_weight,
        }
        self.alpha = alpha
        self.temperature = temperature
        self.points = points
        self.instance_exponent = instance_exponent
        self.semantic_exponent = semantic_exponent
        self.background = background

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments from ``MODEL.MASK_TRANSFORMER.LOSS``.

        Annotations of instances alone (``INPUT.ANNOTATIONS``) leave out what is background.
        """
        loss = cfg.MODEL.MASK_TRANSFORMER.LOSS
        return {
            "class_weight": loss.CLASS_WEIGHT,
            "dice_weight": loss.DICE_WEIGHT,
            "mask_id_weight": loss.MASK_ID_WEIGHT,
            "instance_weight": loss.INSTANCE_WEIGHT,
            "semantic_weight": loss.SEMANTIC_WEIGHT,
            "points": loss.POINTS,
            "background": cfg.INPUT.ANNOTATIONS == "instance",
        }

    def forward(
        self,
        predictions: Sequence[DensePrediction],
        targets: Sequence[Targets],
        semantic_logits: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of every layer, the last one last; one target an image, masks of one size (H, W).

        ``semantic_logits`` (N, K or K+1, h, w): of the auxiliary semantic head, if there is one.
        """
        last = predictions[-1]
        size = (last.mask_logits.shape[-2], last.mask_logits.shape[-1])
        # Sums over all pixels overflow in half precision.
        with torch.autocast(last.mask_logits.device.type, enabled=False):
            segments = [partition(target.masks, size, self.background) for target in targets]
            matches = self.match(last, segments, targets)
            losses: dict[str, torch.Tensor] = {}
            for layer, prediction in enumerate(predictions):
                suffix = layer_suffix(layer, len(predictions))
                values = self._layer_losses(prediction, size, segments, matches, targets)
                losses |= {f"loss_{name}{suffix}": value for name, value in values.items()}
            if semantic_logits is not None:
                semantic = self._semantic_loss(semantic_logits, size, segments, targets)
                losses["loss_semantic"] = self.weights["semantic"] * semantic
        return losses

    def match(
        self,
        prediction: DensePrediction,
        segments: Sequence[Segments],
        targets: Sequence[Targets],
    ) -> list[PQMatch]:
        """Pairs and weights per image, by one layer whose masks have the grid of ``segments``."""
        parts = (prediction.class_logits.detach(), prediction.mask_logits.detach().flatten(2))
        return [
            pq_match(logits.float(), masks.float(), segment, target)
            for logits, masks, segment, target in zip(*parts, segments, targets, strict=True)
        ]

    def draw(self, log_weights: torch.Tensor, number: int) -> torch.Tensor:
        """Indices of ``number`` pixels by their ``log_weights`` (P,): all that is random here."""
        return gumbel_top_k(log_weights, number)

    def _layer_losses(
        self, prediction: DensePrediction, size, segments, matches, targets
    ) -> dict[str, torch.Tensor]:
        """Weighted losses of one layer."""
        masks = prediction.mask_logits.unbind()  # one gradient for the batch, not one per use
        features = prediction.pixel_features.unbind()
        images = range(len(targets))
        mask_id, dice = zip(
            *(mask_id_and_dice(_resized(masks[i], size), segments[i], matches[i]) for i in images),
            strict=True,
        )
        pixel = [self._instance_loss(features[i], size, segments[i]) for i in images]
        values = {
            "ce": self._class_loss(prediction.class_logits.float(), matches, targets),
            "mask_id": torch.stack(mask_id).mean(),
            "dice": self.alpha * torch.stack(dice).mean() / prediction.mask_logits.shape[1],
            "pixel": torch.stack(pixel).mean(),
        }
        return {name: self.weights[name] * value for name, value in values.items()}

    def _class_loss(self, logits: torch.Tensor, matches, targets) -> torch.Tensor:
        classes = logits.new_full(logits.shape[:2], logits.shape[-1] - 1, dtype=torch.long)
        weights = (1 - self.alpha) * torch.stack([match.void_share for match in matches])  # (N, Q)
        for image, match in enumerate(matches):
            classes[image, match.queries] = targets[image].labels[match.chosen]
            weights[image, match.queries] = self.alpha * match.dice
        return (F.cross_entropy(logits.transpose(1, 2), classes, reduction="none") * weights).mean()

    def _instance_loss(self, features: torch.Tensor, size, segments: Segments) -> torch.Tensor:
        pixels = self._sample(segments, segments.areas, self.instance_exponent)
        drawn = resized_values(features.float(), pixels, size)  # (C, k)
        return instance_discrimination_loss(drawn, segments.owner[pixels], self.temperature)

    def _semantic_loss(self, logits: torch.Tensor, size, segments, targets) -> torch.Tensor:
        """Mean over the pixels of each image that the head learns from, over images."""
        values = []
        for maps, segment, target in zip(logits.unbind(), segments, targets, strict=True):
            pixels = self.semantic_pixels(segment, target)
            found = resized_values(maps.float(), pixels, size).T  # (k, K)
            wanted = target.labels[segment.owner[pixels]]
            total = F.cross_entropy(found, wanted, reduction="sum")
            values.append(total / max(len(pixels), 1))
        return torch.stack(values).mean()

    def semantic_pixels(self, segments: Segments, targets: Targets) -> torch.Tensor:
        """Pixels (k,) of one image that the semantic head learns from: a sample by class."""
        areas = class_areas(targets.labels, segments.areas)
        return self._sample(segments, areas, self.semantic_exponent)

    def _sample(self, segments: Segments, areas: torch.Tensor, exponent: float) -> torch.Tensor:
        """Pixels (k,) that belong to a target, where ``areas`` (n,) are small above all."""
        inside = segments.inside
        log_weights = -exponent * areas[segments.owner[inside]].log()
        return inside[self.draw(log_weights, min(self.points, len(inside)))]


def _resized(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps (Q, h, w) on the grid of ``size``, flat: (Q, P)."""
    if tuple(logits.shape[1:]) != size:
        logits = resize_aligned(logits[None].float(), size)[0]
    return logits.float().flatten(1)
