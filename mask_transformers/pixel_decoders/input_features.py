"""What a pixel decoder reads of the backbone, checked."""

from detectron2.layers import ShapeSpec

from ..layers.convolution import GROUPS


def channels_of(input_shape: dict[str, ShapeSpec], name: str) -> int:
    """Channels of the backbone feature ``name``."""
    channels = input_shape[name].channels
    assert channels is not None
    return channels


def check_names(names: list[str], input_shape: dict[str, ShapeSpec]) -> None:
    """ValueError names the key that does not fit the backbone or the order."""
    key = "MODEL.MASK_TRANSFORMER.PIXEL_DECODER.IN_FEATURES"
    missing = [name for name in names if name not in input_shape]
    if missing:
        raise ValueError(f"{key} names {missing}, but the backbone gives {sorted(input_shape)}")
    strides = [input_shape[name].stride or 0 for name in names]
    if len(names) < 2 or strides != sorted(set(strides)):
        raise ValueError(f"{key} must name two or more features, fine to coarse, not {names}")


def check_features(names: list[str], input_shape: dict[str, ShapeSpec], dim: int) -> None:
    """The same, and a ValueError for a width that group norm cannot split."""
    check_names(names, input_shape)
    if dim % GROUPS:
        raise ValueError(
            f"MODEL.MASK_TRANSFORMER.HIDDEN_DIM is {dim}; group norm needs a multiple of {GROUPS}"
        )
