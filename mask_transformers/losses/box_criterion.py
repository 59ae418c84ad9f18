"""Set prediction loss of DETR (section 3.1 and supplement, A.2): class, L1, generalised IoU."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from torch import nn

from ..matching.costs import box_cost, class_cost, giou_cost
from ..matching.hungarian import hungarian_match
from ..structures import BoxTargets
from .boxes import giou_loss, l1_box_loss
from .layer_names import layer_suffix
from .masks import upsampled_mask_losses
from .matched_classes import Match, class_balance, class_loss, mean_target_count

Prediction = tuple[torch.Tensor, torch.Tensor]  # class logits (N, Q, K+1), boxes (N, Q, 4)


class BoxSetCriterion(nn.Module):
    """Weighted losses ``loss_ce``, ``loss_bbox``, ``loss_giou``; auxiliary layers add ``_i``.

    Masks, where there are any, are matched by the boxes of the last layer: ``loss_mask`` and
    ``loss_dice``.
    """

    class_balance: torch.Tensor

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        mask_weight: float = 1.0,
        dice_weight: float = 1.0,
        no_object_weight: float = 0.1,
        deep_supervision: bool = True,
    ) -> None:
        """The defaults are the paper's."""
        super().__init__()
        self.weights = {
            "ce": class_weight,
            "bbox": box_weight,
            "giou": giou_weight,
            "mask": mask_weight,
            "dice": dice_weight,
        }
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
            "box_weight": loss.BOX_WEIGHT,
            "giou_weight": loss.GIOU_WEIGHT,
            "mask_weight": loss.MASK_WEIGHT,
            "dice_weight": loss.DICE_WEIGHT,
            "no_object_weight": loss.NO_OBJECT_WEIGHT,
            "deep_supervision": loss.DEEP_SUPERVISION,
        }

    def forward(
        self,
        predictions: Sequence[Prediction],
        targets: Sequence[BoxTargets],
        last_pairs: Sequence[Match] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of classes and boxes of every layer, the last one last; one target an image.

        ``last_pairs`` are those of the last layer, where they are known already.
        """
        if not self.deep_supervision:
            predictions = predictions[-1:]
        normaliser = mean_target_count(targets, self.class_balance.device)
        losses = {}
        for layer, prediction in enumerate(predictions):
            known = last_pairs if layer == len(predictions) - 1 else None
            pairs = self.match(prediction, targets) if known is None else known
            values = _box_losses(prediction[1], targets, pairs)
            values = {name: value / normaliser for name, value in values.items()}
            values["ce"] = class_loss(prediction[0], targets, pairs, self.class_balance)
            suffix = layer_suffix(layer, len(predictions))
            for name, value in values.items():
                losses[f"loss_{name}{suffix}"] = self.weights[name] * value
        return losses

    def mask_losses(
        self, masks: Sequence[torch.Tensor], targets: Sequence[BoxTargets], pairs: Sequence[Match]
    ) -> dict[str, torch.Tensor]:
        """Losses of the masks of matched queries: logits (n, h, w) for each image."""
        normaliser = mean_target_count(targets, self.class_balance.device)
        sums = [
            upsampled_mask_losses(logits, target.masks[chosen])
            for logits, target, (_, chosen) in zip(masks, targets, pairs, strict=True)
        ]
        focal, dice = (torch.stack(values).sum() / normaliser for values in zip(*sums, strict=True))
        return {
            "loss_mask": self.weights["mask"] * focal,
            "loss_dice": self.weights["dice"] * dice,
        }

    @torch.no_grad()
    def match(self, prediction: Prediction, targets: Sequence[BoxTargets]) -> list[Match]:
        """Pairs per image of one layer."""
        logits, boxes = (part.float() for part in prediction)
        pairs = []
        for i, target in enumerate(targets):
            cost = (
                self.weights["ce"] * class_cost(logits[i], target.labels)
                + self.weights["bbox"] * box_cost(boxes[i], target.boxes)
                + self.weights["giou"] * giou_cost(boxes[i], target.boxes)
            )
            pairs.append(hungarian_match(cost, target.name))
        return pairs


def _box_losses(
    boxes: torch.Tensor, targets: Sequence[BoxTargets], pairs: Sequence[Match]
) -> dict[str, torch.Tensor]:
    """Sums over all matched boxes of one layer."""
    images = range(len(targets))
    found = torch.cat([boxes[i, pairs[i][0]] for i in images]).float()
    wanted = torch.cat([targets[i].boxes[pairs[i][1]] for i in images])
    return {"bbox": l1_box_loss(found, wanted).sum(), "giou": giou_loss(found, wanted).sum()}
