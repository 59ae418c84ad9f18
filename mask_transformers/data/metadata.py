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
    ids = dataset_ids(metadata) if metadata else []
    if not ids:
        whose = f"data set {metadata.name!r}" if metadata else "none that is registered in DATASETS"
        raise ValueError(
            'MODEL.MASK_TRANSFORMER.CLASS_IDS "dataset" needs a data set with a category id for '
            f"each of its classes 0, 1, ...; found {whose}"
        )
    return ids


def dataset_ids(metadata) -> list[int]:
    """The data set's category id of each contiguous class; empty if they are not one to one."""
    things = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    stuff = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
    # Some tables of stuff hold the things too.
    pairs = sorted(
        {(contiguous, i) for table in (things, stuff) for i, contiguous in table.items()}
    )
    one_to_one = [contiguous for contiguous, _ in pairs] == list(range(len(pairs)))
    return [i for _, i in pairs] if one_to_one else []
