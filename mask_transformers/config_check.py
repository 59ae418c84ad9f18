"""Refuses contradictory config values when a model is built, naming the key."""

from detectron2.config import CfgNode

from .data.metadata import class_count, metadata_of

TASKS = ("panoptic", "instance", "semantic")


def check_config(cfg: CfgNode) -> None:
    """ValueError names the key whose value is impossible, alone or beside another one."""
    node = cfg.MODEL.MASK_TRANSFORMER
    _check_positive(cfg)
    _check_tasks(list(node.TEST.TASKS))
    for part in ("PIXEL_DECODER", "TRANSFORMER_DECODER"):
        _check_divides(node.HIDDEN_DIM, node[part].HEADS, part)
    if not 0 <= node.LOSS.IMPORTANCE_RATIO <= 1:
        raise ValueError(
            "MODEL.MASK_TRANSFORMER.LOSS.IMPORTANCE_RATIO must be in [0, 1], not "
            f"{node.LOSS.IMPORTANCE_RATIO}"
        )
    _check_classes(cfg)


def _check_positive(cfg: CfgNode) -> None:
    node = cfg.MODEL.MASK_TRANSFORMER
    keys = ["NUM_CLASSES", "QUERIES", "HIDDEN_DIM", "MASK_DIM", "LOSS.POINTS"]
    keys += ["PIXEL_DECODER.HEADS", "PIXEL_DECODER.POINTS", "TRANSFORMER_DECODER.HEADS"]
    for key in keys:
        value = node
        for name in key.split("."):
            value = value[name]
        if value < 1:
            raise ValueError(f"MODEL.MASK_TRANSFORMER.{key} must be at least 1, not {value}")


def _check_tasks(tasks: list[str]) -> None:
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise ValueError(
            f"MODEL.MASK_TRANSFORMER.TEST.TASKS is {tasks}; choose one or more of {list(TASKS)}"
        )


def _check_divides(dim: int, heads: int, part: str) -> None:
    if dim % heads:
        raise ValueError(
            f"MODEL.MASK_TRANSFORMER.HIDDEN_DIM {dim} is not a multiple of "
            f"MODEL.MASK_TRANSFORMER.{part}.HEADS {heads}"
        )


def _check_classes(cfg: CfgNode) -> None:
    metadata = metadata_of(cfg)
    known = class_count(metadata) if metadata else 0
    wanted = cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES
    if known and known != wanted:
        raise ValueError(
            f"MODEL.MASK_TRANSFORMER.NUM_CLASSES is {wanted}, but data set {metadata.name!r} has "
            f"{known} classes"
        )
