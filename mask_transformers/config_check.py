"""Refuses contradictory config values when a model is built, naming the key."""

import math

from detectron2.config import CfgNode

from .data.metadata import class_count, class_ids_of, metadata_of

ROOT = "MODEL.MASK_TRANSFORMER"
TASKS = ("panoptic", "instance", "semantic", "box")
MATCHERS = ("hungarian", "fixed")
CLASS_IDS = ("contiguous", "dataset")

# Key under MODEL.MASK_TRANSFORMER → smallest and largest possible value.
BOUNDS: dict[str, tuple[float, float]] = {
    "NUM_CLASSES": (1, math.inf),
    "QUERIES": (1, math.inf),
    "HIDDEN_DIM": (1, math.inf),
    "MASK_DIM": (1, math.inf),
    "SIZE_DIVISIBILITY": (0, math.inf),
    "PIXEL_DECODER.LAYERS": (1, math.inf),
    "PIXEL_DECODER.HEADS": (1, math.inf),
    "PIXEL_DECODER.POINTS": (1, math.inf),
    "PIXEL_DECODER.FFN_DIM": (1, math.inf),
    "PIXEL_DECODER.DROPOUT": (0, 1),
    "TRANSFORMER_DECODER.DROPOUT": (0, 1),
    "TRANSFORMER_DECODER.LAYERS": (1, math.inf),
    "TRANSFORMER_DECODER.HEADS": (1, math.inf),
    "TRANSFORMER_DECODER.FFN_DIM": (1, math.inf),
    "TRANSFORMER_DECODER.MASK_SCALE": (0, math.inf),
    "LOSS.CLASS_WEIGHT": (0, math.inf),
    "LOSS.MASK_WEIGHT": (0, math.inf),
    "LOSS.DICE_WEIGHT": (0, math.inf),
    "LOSS.BOX_WEIGHT": (0, math.inf),
    "LOSS.GIOU_WEIGHT": (0, math.inf),
    "LOSS.MASK_ID_WEIGHT": (0, math.inf),
    "LOSS.INSTANCE_WEIGHT": (0, math.inf),
    "LOSS.SEMANTIC_WEIGHT": (0, math.inf),
    "LOSS.NO_OBJECT_WEIGHT": (0, math.inf),
    "LOSS.POINTS": (1, math.inf),
    "LOSS.OVERSAMPLE_RATIO": (1, math.inf),
    "LOSS.IMPORTANCE_RATIO": (0, 1),
    "TEST.OBJECT_MASK_THRESHOLD": (0, 1),
    "TEST.OVERLAP_THRESHOLD": (0, 1),
    "TEST.THING_THRESHOLD": (0, 1),
    "TEST.STUFF_THRESHOLD": (0, 1),
    "TEST.PIXEL_THRESHOLD": (0, 1),
    "TEST.THING_AREA": (0, math.inf),
    "TEST.STUFF_AREA": (0, math.inf),
}


def check_config(cfg: CfgNode) -> None:
    """ValueError names the key whose value is impossible, alone or beside another one."""
    node = cfg.MODEL.MASK_TRANSFORMER
    for key, (lowest, highest) in BOUNDS.items():
        _check_bounds(key, _value(node, key), lowest, highest)
    _check_tasks(list(node.TEST.TASKS))
    _check_choice("MATCHER", node.MATCHER, MATCHERS)
    _check_choice("CLASS_IDS", node.CLASS_IDS, CLASS_IDS)
    for part in ("PIXEL_DECODER", "TRANSFORMER_DECODER"):
        _check_drop_path(node[part].DROP_PATH_RATE, part)
        if node[part].NAME != "AxialPixelDecoder":  # whose heads share WIDTH
            _check_divides(node.HIDDEN_DIM, node[part].HEADS, part)
    _check_pixels(list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD))
    _check_classes(cfg)


def check_masks(cfg: CfgNode) -> None:
    """ValueError where a mask classifier is given boxes alone, or what only DETR has."""
    node = cfg.MODEL.MASK_TRANSFORMER
    if node.CLASS_IDS == "dataset" or node.MASK_HEAD.ENABLED:
        raise ValueError(
            f"{ROOT}.CLASS_IDS {node.CLASS_IDS!r} and {ROOT}.MASK_HEAD.ENABLED "
            f"{node.MASK_HEAD.ENABLED}: only DETR has 'dataset' ids and a mask head, not "
            f"{cfg.MODEL.META_ARCHITECTURE}"
        )
    if cfg.INPUT.ANNOTATIONS == "box":
        raise ValueError(
            f"INPUT.ANNOTATIONS is 'box', but this {cfg.MODEL.META_ARCHITECTURE} learns masks: "
            "choose 'panoptic', 'instance' or 'semantic'"
        )


def _value(node: CfgNode, key: str) -> float:
    *parents, last = key.split(".")
    for name in parents:
        node = node[name]
    return node[last]


def _check_bounds(key: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        wanted = f"in [{lowest}, {highest}]" if highest < math.inf else f"at least {lowest}"
        raise ValueError(f"{ROOT}.{key} must be {wanted}, not {value}")


def _check_drop_path(rate: float, part: str) -> None:
    if not 0 <= rate < 1:  # 1 would leave out every branch
        raise ValueError(f"{ROOT}.{part}.DROP_PATH_RATE must be in [0, 1), not {rate}")


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{ROOT}.{key} is {value!r}; choose one of {list(choices)}")


def _check_tasks(tasks: list[str]) -> None:
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise ValueError(f"{ROOT}.TEST.TASKS is {tasks}; choose one or more of {list(TASKS)}")


def _check_divides(dim: int, heads: int, part: str) -> None:
    if dim % heads:
        raise ValueError(
            f"{ROOT}.HIDDEN_DIM {dim} is not a multiple of {ROOT}.{part}.HEADS {heads}"
        )


def _check_pixels(mean: list[float], std: list[float]) -> None:
    if len(mean) != len(std) or min(std) <= 0:
        raise ValueError(
            "MODEL.PIXEL_STD must hold one positive number for each channel of MODEL.PIXEL_MEAN "
            f"{mean}, not {std}"
        )


def _check_classes(cfg: CfgNode) -> None:
    metadata = metadata_of(cfg)
    wanted = cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES
    ids = class_ids_of(cfg)
    if ids is not None:
        _check_class_ids(ids, wanted, metadata.name)
        return
    known = class_count(metadata) if metadata else 0
    if known and known != wanted:
        raise ValueError(
            f"{ROOT}.NUM_CLASSES is {wanted}, but data set {metadata.name!r} has {known} classes"
        )


def _check_class_ids(ids: list[int], count: int, dataset: str) -> None:
    outside = [i for i in ids if not 0 <= i < count]
    if outside:
        raise ValueError(
            f'{ROOT}.NUM_CLASSES is {count}, but with {ROOT}.CLASS_IDS "dataset" it must be more '
            f"than every category id of data set {dataset!r}, such as {max(outside)}"
        )
