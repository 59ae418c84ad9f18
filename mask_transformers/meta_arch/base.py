"""What every mask transformer does around its network: normalise, pad, targets, resize back."""

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from detectron2.structures import ImageList, Instances
from torch import nn

from ..checkpoint.name_maps import to_native_names
from ..registry import PIXEL_DECODERS
from ..structures import Targets


class MaskTransformer(nn.Module):
    """Base of the meta-architectures; subclasses add the network, ``losses`` and ``infer``."""

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self, *, pixel_mean: Sequence[float], pixel_std: Sequence[float], size_divisibility: int
    ) -> None:
        """``pixel_mean`` and ``pixel_std`` are per channel, in the units of the input (0..255)."""
        super().__init__()
        self.size_divisibility = size_divisibility
        shape = (-1, 1, 1)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(shape), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(shape), persistent=False)

    @property
    def device(self) -> torch.device:
        """The device of the model and of its outputs."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: Sequence[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """Losses ``loss_*`` in training; else per image the results of the chosen tasks.

        Inputs are Detectron2's: ``image`` (3, H, W) in 0..255, in training ``instances`` with
        ``gt_classes`` and ``gt_masks`` (in DETR ``gt_boxes``), optionally the output size
        ``height`` and ``width``. Results: ``panoptic_seg`` (ids (H, W), segments), ``instances``,
        ``sem_seg`` (K, H, W).

        Images of one padded size go through the network together, others apart, so that the
        results on an image do not depend on its batch. In training padding is seen as any pixel,
        by convolutions and batch norms above all.
        """
        if self.training:
            return self.losses(batched_inputs)
        groups = defaultdict(list)
        for index, record in enumerate(batched_inputs):
            height, width = record["image"].shape[-2:]
            groups[self.padded_image_size((height, width))].append(index)
        results: dict[int, dict] = {}
        for indices in groups.values():
            group = [batched_inputs[index] for index in indices]
            results.update(zip(indices, self.infer(group), strict=True))
        return [results[index] for index in range(len(batched_inputs))]

    def losses(self, batched_inputs: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Weighted losses ``loss_*`` of a batch."""
        raise NotImplementedError

    def infer(self, batched_inputs: Sequence[dict]) -> list[dict]:
        """Results per image, for images that are padded to one size."""
        raise NotImplementedError

    def padded_image_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that an image of ``size`` is padded to when it is alone."""
        step = max(self.size_divisibility, 1)
        return -(-size[0] // step) * step, -(-size[1] // step) * step

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As in ``nn.Module``; names of the official release are translated on the way."""
        native = to_native_names(type(self).__name__, state_dict)
        return super().load_state_dict(native, strict=strict, assign=assign)

    def prepare_images(self, batched_inputs: Sequence[dict]) -> ImageList:
        """Normalise the images (3, H, W) and pad them, right and bottom, to (N, 3, H, W)."""
        images = [
            (record["image"].to(self.device) - self.pixel_mean) / self.pixel_std
            for record in batched_inputs
        ]
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        height, width = (max(s) for s in zip(*map(self.padded_image_size, sizes), strict=True))
        padded = [
            F.pad(x, (0, width - w, 0, height - h)) for x, (h, w) in zip(images, sizes, strict=True)
        ]
        return ImageList(torch.stack(padded), sizes)

    def prepare_targets(
        self, batched_inputs: Sequence[dict], padded: tuple[int, int]
    ) -> list[Targets]:
        """Targets of the images, with masks padded to ``padded`` (H, W) by background."""
        return [self._prepare_target(record, padded) for record in batched_inputs]

    def _prepare_target(self, record: dict, padded: tuple[int, int]) -> Targets:
        name, instances = self.instances_of(record)
        return Targets(instances.gt_classes, self.padded_masks(instances, name, padded), name)

    def instances_of(self, record: dict) -> tuple[str, Instances]:
        """Name and ground truth of an image; KeyError names one that has none."""
        name = str(record.get("file_name", record.get("image_id", "")))
        if "instances" not in record:
            raise KeyError(f"image {name or '(unnamed)'} has no 'instances' to train on")
        return name, record["instances"].to(self.device)

    def padded_masks(
        self, instances: Instances, name: str, padded: tuple[int, int]
    ) -> torch.Tensor:
        """``gt_masks`` (n, *padded) bool; KeyError names an image that has none."""
        require_field(instances, "gt_masks", name)
        masks = getattr(instances.gt_masks, "tensor", instances.gt_masks).bool()
        height, width = masks.shape[-2:]
        return F.pad(masks, (0, padded[1] - width, 0, padded[0] - height))


def require_field(instances: Instances, field: str, name: str) -> None:
    """KeyError names the image ``name`` if its ``instances`` lack ``field``."""
    if not instances.has(field):
        raise KeyError(f"the instances of image {name or '(unnamed)'} have no {field!r}")


def pixel_parts(cfg: CfgNode) -> dict:
    """Constructor arguments up to the pixel decoder, from a config that was checked."""
    node = cfg.MODEL.MASK_TRANSFORMER
    backbone = build_backbone(cfg)
    pixel_decoder = PIXEL_DECODERS.get(node.PIXEL_DECODER.NAME)
    return {
        "backbone": backbone,
        "pixel_decoder": pixel_decoder(cfg, backbone.output_shape()),
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "size_divisibility": node.SIZE_DIVISIBILITY,
    }


def padded_size(images: ImageList) -> tuple[int, int]:
    """Height and width of the batch."""
    return images.tensor.shape[-2], images.tensor.shape[-1]


def in_fast_layout(images: torch.Tensor) -> torch.Tensor:
    """The same images (N, 3, H, W); on a CPU with channels last in memory.

    Layers keep that layout, and convolutions need no copies in one of their own.
    """
    if images.device.type != "cpu" or torch.is_grad_enabled():
        return images
    return images.contiguous(memory_format=torch.channels_last)


def resize_to_output(
    masks: torch.Tensor,
    padded: tuple[int, int],
    image: tuple[int, int],
    output: tuple[int, int],
) -> torch.Tensor:
    """Maps (Q, h, w) of a padded image to (Q, *output): all sizes are (height, width).

    As in the official code the maps are brought to the padded size, cut to the image and then
    resized, all bilinearly; the order matters for the last digits.
    """
    if not len(masks):  # which interpolate refuses
        return masks.new_zeros(0, *output)
    masks = _resize(masks, padded)[:, : image[0], : image[1]]
    return _resize(masks, output)


def _resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
