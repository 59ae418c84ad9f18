"""What MaX-DeepLab and kMaX-DeepLab do around their networks: padding, and results from masks that
exclude each other.
"""

from collections.abc import Sequence

import torch

from ..config_check import ROOT
from ..inference.instance import kmax_instance_inference
from ..inference.semantic import kmax_semantic_inference
from ..layers.axial_attention import MAX_LENGTH
from ..layers.conv_norm import resize_aligned
from ..structures import DensePrediction
from .base import MaskTransformer, padded_size, resize_to_output

AXIAL_STRIDE = 16  # the finest of axial attention
LONGEST_SIDE = AXIAL_STRIDE * (MAX_LENGTH - 1) + 1  # pixels, of a padded image


class ExclusiveMaskTransformer(MaskTransformer):
    """Base of both; subclasses add the network, ``losses``, ``predict`` and ``panoptic``."""

    def __init__(
        self,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
        padded_size: Sequence[int] = (),
        tasks: Sequence[str] = ("panoptic",),
        thing_classes: set[int] | None = None,
        pixel_threshold: float = 0.4,
        detections_per_image: int = 100,
    ) -> None:
        """``thing_classes`` None: all classes are things; the threshold is that of instances."""
        super().__init__(
            pixel_mean=pixel_mean, pixel_std=pixel_std, size_divisibility=size_divisibility
        )
        self.padded_size = tuple(padded_size)
        self.tasks = tuple(tasks)
        self.thing_classes = thing_classes
        self.pixel_threshold = pixel_threshold
        self.detections_per_image = detections_per_image

    def predict(self, images: torch.Tensor) -> DensePrediction:
        """The last prediction for normalised, padded ``images`` (N, 3, H, W)."""
        raise NotImplementedError

    def panoptic(
        self, class_logits: torch.Tensor, masks: torch.Tensor, thing_classes: set[int]
    ) -> tuple[torch.Tensor, list[dict]]:
        """Panoptic result of ``class_logits`` (Q, K+1) and mask logits (Q, H, W)."""
        raise NotImplementedError

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

    def infer(self, batched_inputs: Sequence[dict]) -> list[dict]:
        """Results per image, for images that are padded to one size."""
        images = self.prepare_images(batched_inputs)
        prediction = self.predict(images.tensor)
        padded = padded_size(images)
        results = []
        for i, (record, size) in enumerate(zip(batched_inputs, images.image_sizes, strict=True)):
            output = (record.get("height", size[0]), record.get("width", size[1]))
            masks = resize_aligned(prediction.mask_logits[i : i + 1].float(), padded)[0]
            masks = resize_to_output(masks, padded, (size[0], size[1]), output)
            results.append(self._results(prediction.class_logits[i].float(), masks))
        return results

    def _results(self, class_logits: torch.Tensor, masks: torch.Tensor) -> dict:
        results: dict = {}
        things = self.thing_classes
        if "semantic" in self.tasks:
            results["sem_seg"] = kmax_semantic_inference(class_logits, masks)
        if "panoptic" in self.tasks:
            every = set(range(class_logits.shape[-1] - 1))
            known = every if things is None else things
            results["panoptic_seg"] = self.panoptic(class_logits, masks, known)
        if "instance" in self.tasks or "box" in self.tasks:
            results["instances"] = kmax_instance_inference(
                class_logits, masks, self.detections_per_image, things, self.pixel_threshold
            )
        return results


def named(prediction: DensePrediction) -> dict[str, torch.Tensor]:
    """A prediction as raw output."""
    return {
        "pred_logits": prediction.class_logits,
        "pred_masks": prediction.mask_logits,
        "pixel_feature": prediction.pixel_features,
    }
