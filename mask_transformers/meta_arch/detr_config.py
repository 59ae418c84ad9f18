"""DETR's constructor arguments from a config."""

from detectron2.config import CfgNode
from detectron2.modeling import Backbone, build_backbone

from ..config_check import ROOT, check_config
from ..data.metadata import class_ids_of, thing_classes_of
from ..layers.transformer_layers import TransformerEncoder
from ..losses.box_criterion import BoxSetCriterion
from ..pixel_decoders.input_features import channels_of
from ..transformer_decoders.detr_mask_head import DETRMaskHead
from ..transformer_decoders.standard import query_decoder


def detr_arguments(cfg: CfgNode) -> dict:
    """Parts and settings; ValueError names the key of a contradictory value."""
    check_config(cfg)
    _check_detr(cfg)
    node = cfg.MODEL.MASK_TRANSFORMER
    part = node.PIXEL_DECODER
    backbone, dim = build_backbone(cfg), node.HIDDEN_DIM
    names = _known_features(list(part.IN_FEATURES), backbone)
    return {
        "backbone": backbone,
        "in_features": names,
        "encoder": TransformerEncoder(dim, part.LAYERS, part.HEADS, part.FFN_DIM, part.DROPOUT),
        "decoder": query_decoder(cfg, dim, node.QUERIES),
        "mask_head": _mask_head(cfg, backbone, names[:-1]),
        "criterion": BoxSetCriterion(cfg),
        "num_classes": node.NUM_CLASSES,
        "dim": dim,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "size_divisibility": node.SIZE_DIVISIBILITY,
        "freeze_detector": node.MASK_HEAD.FREEZE_DETECTOR,
        "class_ids": class_ids_of(cfg),
        "tasks": node.TEST.TASKS,
        "thing_classes": thing_classes_of(cfg),
        "object_mask_threshold": node.TEST.OBJECT_MASK_THRESHOLD,
        "detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
    }


def _check_detr(cfg: CfgNode) -> None:
    node = cfg.MODEL.MASK_TRANSFORMER
    tasks, with_masks = set(node.TEST.TASKS), node.MASK_HEAD.ENABLED
    possible = {"box", "instance", "panoptic"} if with_masks else {"box"}
    if not tasks <= possible:
        raise ValueError(
            f"{ROOT}.TEST.TASKS of DETR with {ROOT}.MASK_HEAD.ENABLED {with_masks} can be "
            f"{sorted(possible)}, not {sorted(tasks)}"
        )
    if with_masks and cfg.INPUT.ANNOTATIONS not in ("panoptic", "instance"):
        raise ValueError(
            f"{ROOT}.MASK_HEAD.ENABLED needs INPUT.ANNOTATIONS with masks, 'panoptic' or "
            f"'instance', not {cfg.INPUT.ANNOTATIONS!r}"
        )
    if node.MATCHER != "hungarian":
        raise ValueError(f"{ROOT}.MATCHER of DETR must be 'hungarian', not {node.MATCHER!r}")
    if node.PIXEL_DECODER.NAME or node.TRANSFORMER_DECODER.NAME:
        raise ValueError(
            f"{ROOT}.PIXEL_DECODER.NAME and {ROOT}.TRANSFORMER_DECODER.NAME of DETR must be '': "
            "its encoder and decoder cannot be exchanged"
        )
    if node.MASK_HEAD.FREEZE_DETECTOR and not with_masks:
        raise ValueError(
            f"{ROOT}.MASK_HEAD.FREEZE_DETECTOR leaves nothing to train without ENABLED"
        )


def _known_features(names: list[str], backbone: Backbone) -> list[str]:
    missing = [name for name in names if name not in backbone.output_shape()]
    if missing or not names:
        raise ValueError(
            f"{ROOT}.PIXEL_DECODER.IN_FEATURES is {names}, but the backbone gives "
            f"{sorted(backbone.output_shape())}"
        )
    return names


def _mask_head(cfg: CfgNode, backbone: Backbone, fine: list[str]) -> DETRMaskHead | None:
    node = cfg.MODEL.MASK_TRANSFORMER
    if not node.MASK_HEAD.ENABLED:
        return None
    channels = [channels_of(backbone.output_shape(), name) for name in reversed(fine)]
    return DETRMaskHead(node.HIDDEN_DIM, node.TRANSFORMER_DECODER.HEADS, channels)
