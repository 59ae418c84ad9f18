"""Test-time augmentation of semantic segmentation: mean scores over scales and mirror images."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from fvcore.transforms.transform import HFlipTransform
from torch import nn


class AugmentedSemantic(nn.Module):
    """A model that segments every image at several scales, and mirrored, and takes the mean.

    The image is what the data loader gives, resized once more; INPUT.MIN_SIZE_TEST 0 makes that
    the image as it is in its file.
    """

    @configurable
    def __init__(
        self, *, model: nn.Module, min_sizes: Sequence[int], max_size: int, flip: bool = True
    ) -> None:
        """Args:
            model: any that gives ``sem_seg`` (K, H, W) at the size that its input asks for.
            min_sizes: lengths of the shortest side, in pixels.
            max_size: longest side in pixels; the scale is reduced where it would be exceeded.
            flip: whether each scale is seen mirrored too.

        Raises:
            ValueError: there are no sizes, or sizes that no image has.
        """
        super().__init__()
        if not min_sizes or min(min_sizes) < 1 or max_size < 1:
            raise ValueError(
                "TEST.AUG needs MIN_SIZES, one or more, and MAX_SIZE of at least one pixel, not "
                f"{list(min_sizes)} and {max_size}"
            )
        self.model = model
        self.resizes = [T.ResizeShortestEdge(size, max_size) for size in min_sizes]
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> dict:
        """Arguments from TEST.AUG."""
        node = cfg.TEST.AUG
        return {
            "model": model,
            "min_sizes": node.MIN_SIZES,
            "max_size": node.MAX_SIZE,
            "flip": node.FLIP,
        }

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[dict]) -> list[dict]:
        """``sem_seg`` (K, H, W), the mean of the model's scores, of every record.

        ValueError: the model gives no ``sem_seg``.
        """
        return [{"sem_seg": self._mean_scores(record)} for record in batched_inputs]

    def _mean_scores(self, record: dict) -> torch.Tensor:
        record = _with_output_size(record)
        total, count = None, 0
        for image, mirrored in self._views(record["image"]):
            scores = self._scores({**record, "image": image})  # (K, H, W)
            scores = scores.flip(-1) if mirrored else scores
            # One at a time: scores at full size are the largest thing in memory.
            total = scores if total is None else total.add_(scores)
            count += 1
        assert total is not None
        return total.div_(count)

    def _views(self, image: torch.Tensor) -> Iterator[tuple[torch.Tensor, bool]]:
        """Images (3, h, w) and whether they are mirrored."""
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())  # (h, w, 3)
        for resize in self.resizes:
            resized = resize.get_transform(pixels).apply_image(pixels)
            yield _as_tensor(resized), False
            if self.flip:
                yield _as_tensor(HFlipTransform(resized.shape[1]).apply_image(resized)), True

    def _scores(self, record: dict) -> torch.Tensor:
        [result] = self.model([record])
        if "sem_seg" not in result:
            raise ValueError(
                "test-time augmentation is for semantic segmentation, but the model gives only "
                f"{sorted(result)}: add 'semantic' to MODEL.MASK_TRANSFORMER.TEST.TASKS"
            )
        return result["sem_seg"]


def _with_output_size(record: dict) -> dict:
    """The record, asking for the size of its own image where it asks for none."""
    height, width = record["image"].shape[-2:]
    return {"height": height, "width": width, **record}


def _as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
