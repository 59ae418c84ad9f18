"""Parts of MaX-DeepLab that a config chooses, and what it must not say, naming the key."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode

from ..backbones.max_resnet import StageBuilder
from ..backbones.max_timm import TRUNK_FEATURES
from ..config_check import ROOT, check_config, check_masks
from ..inference.kmax_panoptic import kmax_panoptic_inference
from ..inference.max_panoptic import max_panoptic_inference
from ..layers.conv_norm import resize_corners
from .semantic_head import DecodedSemanticHead, SemanticHead

PanopticInference = Callable[[torch.Tensor, torch.Tensor, set[int]], tuple[torch.Tensor, list]]

BACKBONES = ("build_max_resnet_backbone", "build_max_timm_backbone")
BLOCKS = ("bottleneck", "basic")
STAGES = ["res4", "res5"]
STRIDE = 16


def check_max(cfg: CfgNode) -> None:
    """ValueError names the key."""
    check_masks(cfg)
    check_config(cfg)
    node, part = cfg.MODEL.MASK_TRANSFORMER, cfg.MODEL.MAX_RESNET
    if cfg.MODEL.BACKBONE.NAME not in BACKBONES:
        _refuse("MODEL.BACKBONE.NAME", f"one of {list(BACKBONES)}", cfg.MODEL.BACKBONE.NAME)
    if cfg.MODEL.BACKBONE.NAME == "build_max_timm_backbone":
        _check_timm(cfg)
    if node.MATCHER != "hungarian":
        _refuse(f"{ROOT}.MATCHER", "'hungarian'", node.MATCHER)
    if node.SIZE_DIVISIBILITY < STRIDE or node.SIZE_DIVISIBILITY % STRIDE:
        _refuse(f"{ROOT}.SIZE_DIVISIBILITY", f"a multiple of {STRIDE}", node.SIZE_DIVISIBILITY)
    padded = list(node.PADDED_SIZE)
    step = node.SIZE_DIVISIBILITY
    if padded and (len(padded) != 2 or min(padded) < 1 or any((x - 1) % step for x in padded)):
        wanted = f"[] or [height, width], each one more than a multiple of {step}"
        _refuse(f"{ROOT}.PADDED_SIZE", wanted, padded)
    _check_resnet(part)
    heads = node.TRANSFORMER_DECODER.HEADS
    narrow = node.HIDDEN_DIM // (2 if "res4" in part.TRANSFORMER_STAGES else 1)
    if node.HIDDEN_DIM % 4 or narrow % (2 * heads):
        raise ValueError(
            f"{ROOT}.TRANSFORMER_DECODER.HEADS {heads} must divide the keys of all transformers: "
            f"{narrow // 2} channels for {ROOT}.HIDDEN_DIM {node.HIDDEN_DIM}"
        )


def _check_resnet(part: CfgNode) -> None:
    key = "MODEL.MAX_RESNET"
    if part.BLOCK not in BLOCKS:
        _refuse(f"{key}.BLOCK", f"one of {list(BLOCKS)}", part.BLOCK)
    if len(part.BLOCKS) != 4 or min(part.BLOCKS) < 1:
        _refuse(f"{key}.BLOCKS", "four positive numbers", part.BLOCKS)
    if part.DECODER_BLOCKS < 1:
        _refuse(f"{key}.DECODER_BLOCKS", "positive", part.DECODER_BLOCKS)
    if min(part.STACKS, part.DECODER_STACKS) < 0:
        raise ValueError(f"{key}.STACKS and {key}.DECODER_STACKS must not be negative")
    if "res5" not in part.TRANSFORMER_STAGES or set(part.TRANSFORMER_STAGES) - set(STAGES):
        _refuse(
            f"{key}.TRANSFORMER_STAGES", '["res5"] or ["res4", "res5"]', part.TRANSFORMER_STAGES
        )
    if min(part.WIDTH, part.HEADS) < 1 or 4 * part.WIDTH % part.HEADS:
        raise ValueError(
            f"{key}.HEADS {part.HEADS} must divide 4 times {key}.WIDTH {part.WIDTH}, the width of "
            "the narrowest keys"
        )
    if not 0 <= part.DROP_PATH_RATE < 1:
        _refuse(f"{key}.DROP_PATH_RATE", "in [0, 1)", part.DROP_PATH_RATE)


def _check_timm(cfg: CfgNode) -> None:
    """What follows from a trunk that ends at stride 16 and knows no memory."""
    if sorted(cfg.MODEL.TIMM.OUT_FEATURES) != list(TRUNK_FEATURES):
        _refuse("MODEL.TIMM.OUT_FEATURES", str(list(TRUNK_FEATURES)), cfg.MODEL.TIMM.OUT_FEATURES)
    part = cfg.MODEL.MAX_RESNET
    if list(part.TRANSFORMER_STAGES) != ["res5"] or part.STACKS:
        raise ValueError(
            "MODEL.BACKBONE.NAME 'build_max_timm_backbone' needs MODEL.MAX_RESNET.STACKS 0 and "
            f"TRANSFORMER_STAGES ['res5'], not {part.STACKS} and {part.TRANSFORMER_STAGES}"
        )


def _refuse(key: str, wanted: str, value: object) -> None:
    raise ValueError(f"{key} of MaXDeepLab must be {wanted}, not {value!r}")


def semantic_head(
    builder: StageBuilder, decoded: bool, num_classes: int
) -> SemanticHead | DecodedSemanticHead:
    """The auxiliary head, for ``decoded`` maps or for the backbone's features."""
    if decoded:
        return DecodedSemanticHead(builder.channels("res2"), num_classes, activation=F.relu)
    channels = (builder.channels("res5"), builder.channels("res3"), builder.channels("res2"))
    return SemanticHead(channels, num_classes, activation=F.relu, resize=resize_corners)


def panoptic_inference(cfg: CfgNode) -> PanopticInference:
    """Pixel-wise inference or, with ``TEST.MASK_WISE``, that of kMaX-DeepLab."""
    test = cfg.MODEL.MASK_TRANSFORMER.TEST
    thresholds = {
        "thing_threshold": test.THING_THRESHOLD,
        "stuff_threshold": test.STUFF_THRESHOLD,
        "pixel_threshold": test.PIXEL_THRESHOLD,
    }
    if test.MASK_WISE:
        return partial(
            kmax_panoptic_inference, overlap_threshold=test.OVERLAP_THRESHOLD, **thresholds
        )
    return partial(
        max_panoptic_inference,
        thing_area=test.THING_AREA,
        stuff_area=test.STUFF_AREA,
        **thresholds,
    )
