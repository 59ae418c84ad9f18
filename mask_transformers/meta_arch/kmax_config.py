"""Refuses config values that contradict kMaX-DeepLab, naming the key."""

from detectron2.config import CfgNode

from ..config_check import ROOT, check_config, check_masks

# No other parts give levels of decreasing width and dense masks of every layer.
PARTS = {"PIXEL_DECODER": "AxialPixelDecoder", "TRANSFORMER_DECODER": "KMeansDecoder"}


def check_kmax(cfg: CfgNode) -> None:
    """ValueError names the key."""
    check_masks(cfg)
    check_config(cfg)
    node = cfg.MODEL.MASK_TRANSFORMER
    if node.MATCHER != "hungarian":
        raise ValueError(f"{ROOT}.MATCHER of KMaXDeepLab must be 'hungarian', not {node.MATCHER!r}")
    for part, name in PARTS.items():
        if name != node[part].NAME:
            raise ValueError(
                f"{ROOT}.{part}.NAME of KMaXDeepLab must be {name!r}, not {node[part].NAME!r}"
            )
    if not node.LOSS.DEEP_SUPERVISION:
        raise ValueError(
            f"{ROOT}.LOSS.DEEP_SUPERVISION must be True in KMaXDeepLab: every layer learns "
            "its masks from its own losses, as an assignment of pixels has no gradient"
        )
    _check_sizes(list(node.PADDED_SIZE), list(node.PIXEL_DECODER.IN_FEATURES))


def _check_sizes(padded: list[int], features: list[str]) -> None:
    if padded and (len(padded) != 2 or min(padded) < 1):
        raise ValueError(f"{ROOT}.PADDED_SIZE must be [] or [height, width], not {padded}")
    if len(features) != 4:
        raise ValueError(
            f"{ROOT}.PIXEL_DECODER.IN_FEATURES of KMaXDeepLab must name the features with stride "
            f"4, 8, 16 and 32, not {features}"
        )
