"""What the model must know of its data set: the number of classes, and which are things."""

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog


def metadata_of(cfg: CfgNode):
    """Metadata of the first registered data set of DATASETS.TEST and TRAIN, or None."""
    from .datasets.folder import register_folder_of

    register_folder_of(cfg)
    for name in [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]:
        if name in DatasetCatalog or (cfg.DATASETS.FOLDER and name in MetadataCatalog.list()):
            return MetadataCatalog.get(name)
    return None


def class_count(metadata) -> int:
    """Number of classes K, counted as the evaluators count them."""
    if metadata.get("evaluator_type") == "sem_seg":
        return len(metadata.get("stuff_classes", []))
    things = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    stuff = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
    return len(set(things.values()) | set(stuff.values()))


def thing_classes_of(cfg: CfgNode) -> set[int] | None:
    """Contiguous ids of the thing classes, or None where the data set does not say."""
    metadata = metadata_of(cfg)
    things = metadata.get("thing_dataset_id_to_contiguous_id") if metadata else None
    return None if things is None else set(things.values())


def class_ids_of(cfg: CfgNode) -> list[int] | None:
    """What the class head calls each class of the data set, in order; None: contiguous ids.

    With ``MODEL.MASK_TRANSFORMER.CLASS_IDS`` "dataset" these are the data set's own category ids.
    ValueError names the key when the data set does not give one to each of its classes.
    """
    if cfg.MODEL.MASK_TRANSFORMER.CLASS_IDS == "contiguous":
        return None
    metadata = metadata_of(cfg)
    pairs = _id_pairs(metadata) if metadata else []
    ids = dict(pairs)
    one_to_one = len(set(pairs)) == len(ids) and sorted(ids) == list(range(len(ids)))
    if not ids or not one_to_one:
        whose = f"data set {metadata.name!r}" if metadata else "none that is registered in DATASETS"
        raise ValueError(
            'MODEL.MASK_TRANSFORMER.CLASS_IDS "dataset" needs a data set with a category id for '
            "each of its classes 0, 1, ... in its metadata (thing_dataset_id_to_contiguous_id, "
            f"which a json that Detectron2 registers has once it is loaded); found {whose}"
        )
    return [ids[i] for i in range(len(ids))]


def dataset_ids(metadata) -> dict[int, int]:
    """The data set's category id of each contiguous class, those of things where both have one."""
    return dict(_id_pairs(metadata))


def _id_pairs(metadata) -> list[tuple[int, int]]:
    """Contiguous id and category id of stuff, then of things; some tables of stuff hold both."""
    tables = [metadata.get(f"{kind}_dataset_id_to_contiguous_id") for kind in ("stuff", "thing")]
    return [(contiguous, i) for table in tables if table for i, contiguous in table.items()]
