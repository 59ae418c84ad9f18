"""What every mask transformer does around its network: normalise, pad, targets, resize back."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from detectron2.structures import ImageList
from torch import nn

from ..checkpoint.name_maps import to_native_names
from ..registry import PIXEL_DECODERS
from ..structures import Targets


class MaskTransformer(nn.Module):
    """Base of the meta-architectures; subclasses add the network, the losses and inference."""

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
        return ImageList.from_tensors(images, self.size_divisibility)

    def prepare_targets(
        self, batched_inputs: Sequence[dict], padded: tuple[int, int]
    ) -> list[Targets]:
        """Targets of the images, with masks padded to ``padded`` (H, W) by background."""
        return [self._prepare_target(record, padded) for record in batched_inputs]

    def _prepare_target(self, record: dict, padded: tuple[int, int]) -> Targets:
        name = str(record.get("file_name", record.get("image_id", "")))
        if "instances" not in record:
            raise KeyError(f"image {name or '(unnamed)'} has no 'instances' to train on")
        instances = record["instances"].to(self.device)
        masks = getattr(instances.gt_masks, "tensor", instances.gt_masks).bool()
        height, width = masks.shape[-2:]
        masks = F.pad(masks, (0, padded[1] - width, 0, padded[0] - height))
        return Targets(instances.gt_classes, masks, name)


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
