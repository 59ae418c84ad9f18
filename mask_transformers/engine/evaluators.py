"""Which evaluators a data set and the chosen tasks need, as a table."""

import contextlib
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
)
from detectron2.utils import comm
from pycocotools.coco import COCO

from ..data.metadata import class_count
from ..evaluation.panoptic import PanopticEvaluator
from ..evaluation.panoptic_ground_truth import class_map_reader, write_instance_json
from ..evaluation.semantic import SemanticEvaluator, label_reader
from ..evaluation.things import ThingEvaluator

logger = logging.getLogger(__name__)

# Config, data set, output folder and the tasks of TEST.TASKS that fit the data set.
Builder = Callable[[CfgNode, str, str, Sequence[str]], DatasetEvaluator]
# Tasks that COCO's evaluation of instances does, by its names for them.
COCO_TYPES = {"box": "bbox", "instance": "segm"}


def build_evaluators(cfg: CfgNode, dataset_name: str, output_dir: str) -> DatasetEvaluators:
    """The evaluators of ``dataset_name`` for MODEL.MASK_TRANSFORMER.TEST.TASKS.

    All of them share one inference pass; raises as :func:`fitting_tasks`.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    fitting = fitting_tasks(cfg, dataset_name)
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    builders = dict.fromkeys(_BUILDERS[kind, task] for task in fitting)  # one may do two tasks
    return DatasetEvaluators([build(cfg, dataset_name, output_dir, fitting) for build in builders])


def fitting_tasks(cfg: CfgNode, dataset_name: str) -> list[str]:
    """The tasks of MODEL.MASK_TRANSFORMER.TEST.TASKS that ``dataset_name`` can be evaluated for.

    Tasks that the data set has no annotations for are left out with a warning. ValueError names
    the data set, its type and the tasks if none is left.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    tasks = list(cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS)
    fitting = [task for task in tasks if (kind, task) in _BUILDERS]
    if not _things(dataset_name):
        fitting = [task for task in fitting if task not in COCO_TYPES]
    if not fitting:
        nothing = "" if _things(dataset_name) else " (instance and box only with thing classes)"
        raise ValueError(
            f"data set {dataset_name!r} of evaluator_type {kind!r} can be evaluated for "
            f"{_tasks_of(kind)}{nothing}, but MODEL.MASK_TRANSFORMER.TEST.TASKS is {tasks}"
        )
    if left_out := [task for task in tasks if task not in fitting]:
        logger.warning(f"Data set {dataset_name!r} has no annotations to evaluate {left_out}")
    return fitting


def _tasks_of(kind: str | None) -> list[str]:
    return [task for known, task in _BUILDERS if known == kind]


def _things(dataset_name: str) -> list[dict]:
    """COCO categories of the things, in contiguous order."""
    metadata = MetadataCatalog.get(dataset_name)
    table = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    return [
        {"id": category, "contiguous_id": index, "name": metadata.thing_classes[index]}
        for category, index in sorted(table.items(), key=lambda item: item[1])
    ]


def _panoptic(
    cfg: CfgNode, dataset_name: str, output_dir: str, tasks: Sequence[str]
) -> DatasetEvaluator:
    return PanopticEvaluator(dataset_name, output_dir)


def _panoptic_instances(
    cfg: CfgNode, dataset_name: str, output_dir: str, tasks: Sequence[str]
) -> DatasetEvaluator:
    """AP on the instance json of a panoptic data set, or else on its things."""
    metadata = MetadataCatalog.get(dataset_name)
    things = _things(dataset_name)
    json_file = metadata.get("json_file")
    if not json_file or not Path(json_file).is_file():
        json_file = str(Path(output_dir) / "instances_from_panoptic.json")
        if comm.is_main_process():
            records = DatasetCatalog.get(dataset_name)
            write_instance_json(records, things, Path(json_file), metadata.panoptic_json)
        comm.synchronize()
    # Detectron2's evaluator wants metadata that know nothing but things, counted from 0.
    view = _fresh_metadata(f"{dataset_name}/things").set(
        json_file=json_file,
        thing_classes=[thing["name"] for thing in things],
        thing_dataset_id_to_contiguous_id={t["id"]: i for i, t in enumerate(things)},
    )
    evaluator = _instances(cfg, view.name, output_dir, tasks)
    return ThingEvaluator(evaluator, [thing["contiguous_id"] for thing in things])


def _instances(
    cfg: CfgNode, dataset_name: str, output_dir: str, tasks: Sequence[str]
) -> DatasetEvaluator:
    """AP of boxes, masks or both, of the same instances."""
    # COCO's limit of 100 detections would cap the recall of images with more objects than that.
    limit = max(100, cfg.TEST.DETECTIONS_PER_IMAGE)
    evaluator = COCOEvaluator(
        dataset_name,
        tasks=tuple(COCO_TYPES[task] for task in tasks if task in COCO_TYPES),
        output_dir=output_dir,
        max_dets_per_image=limit,
        use_fast_impl=False,
    )
    _complete_annotations(evaluator._coco_api)
    return evaluator


def _complete_annotations(truth: COCO) -> None:
    """COCO's evaluation takes id 0 for "no match", merges equal ids and wants "iscrowd"."""
    for number, annotation in enumerate(truth.dataset.get("annotations", []), start=1):
        annotation["id"] = number
        annotation.setdefault("iscrowd", 0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()


def _panoptic_semantics(
    cfg: CfgNode, dataset_name: str, output_dir: str, tasks: Sequence[str]
) -> DatasetEvaluator:
    """mIoU over all classes, of things too.

    The truth is the data set's label images, where it has a folder of them (``sem_seg_root``), else
    the classes of the panoptic PNGs.
    """
    metadata = MetadataCatalog.get(dataset_name)
    ignore_label = metadata.get("ignore_label", 255)
    records = [r for r in DatasetCatalog.get(dataset_name) if r.get("pan_seg_file_name")]
    names = _class_names(metadata)
    labels = metadata.get("sem_seg_root")
    if labels and Path(labels).is_dir():
        files = [str(Path(labels) / f"{Path(r['file_name']).stem}.png") for r in records]
        reader = label_reader(len(names), ignore_label)
    else:
        files = [r["pan_seg_file_name"] for r in records]
        reader = class_map_reader(records, ignore_label)
    view = _fresh_metadata(f"{dataset_name}/classes").set(
        stuff_classes=names, ignore_label=ignore_label
    )
    pairs = [
        {"file_name": record["file_name"], "sem_seg_file_name": file}
        for record, file in zip(records, files, strict=True)
    ]
    DatasetCatalog.register(view.name, lambda: pairs)
    return SemanticEvaluator(view.name, output_dir=output_dir, sem_seg_loading_fn=reader)


def _semantics(
    cfg: CfgNode, dataset_name: str, output_dir: str, tasks: Sequence[str]
) -> DatasetEvaluator:
    metadata = MetadataCatalog.get(dataset_name)
    reader = label_reader(len(metadata.stuff_classes), metadata.ignore_label)
    return SemanticEvaluator(dataset_name, output_dir=output_dir, sem_seg_loading_fn=reader)


def _class_names(metadata) -> list[str]:
    """Names of all K classes, where things come before stuff."""
    count = class_count(metadata)
    names = list(metadata.stuff_classes)
    return names if len(names) == count else [*metadata.thing_classes, *names][-count:]


def _fresh_metadata(name: str):
    """Metadata of a view of a data set; those of an earlier evaluation are forgotten."""
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    return MetadataCatalog.get(name)


_BUILDERS: dict[tuple[str | None, str], Builder] = {
    ("coco_panoptic_seg", "panoptic"): _panoptic,
    ("coco_panoptic_seg", "instance"): _panoptic_instances,
    ("coco_panoptic_seg", "box"): _panoptic_instances,
    ("coco_panoptic_seg", "semantic"): _panoptic_semantics,
    ("coco", "instance"): _instances,
    ("coco", "box"): _instances,
    ("coco_box", "box"): _instances,
    ("sem_seg", "semantic"): _semantics,
}
