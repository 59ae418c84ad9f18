"""Predictions as data: COCO's panoptic format, COCO's instance results, label images."""

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode, Instances
from pycocotools import mask as coco_mask

from ..data.boxes import clip_boxes
from ..data.instance_masks import mask_box
from ..data.label_maps import encode_ids
from ..data.metadata import dataset_ids
from ..output_files import write_image, write_json

JSON_NAMES = {
    "panoptic": "panoptic.json",
    "instance": "instances.json",
    "box": "instances.json",
}
PNG_TASKS = ("panoptic", "semantic")


class RawResults:
    """Collects the results of images below ``folder`` and writes them.

    panoptic: ``panoptic/STEM.png`` and ``panoptic.json``, with the segments of each image;
    instance, box: ``instances.json``, a list of COCO results with the predicted boxes, cut to the
    image, and the masks, if there are any, in RLE;
    semantic: ``semantic/STEM.png`` with class indices 0..K-1. Category ids are those of the data
    set where the metadata has them, else class indices; an image's id is its name without suffix,
    as a number where it is one.
    """

    def __init__(self, folder: Path, metadata=None) -> None:
        self.folder = folder
        self._dataset_ids = {} if metadata is None else dataset_ids(metadata)
        self._categories = _categories(metadata, self._dataset_ids)
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._instances: list[dict] = []
        self._keys: set[str] = set()

    def paths(self, source: Path, tasks: list[str]) -> list[Path]:
        """The files that the results of ``source`` go to."""
        pngs = [self._png(t, source) for t in tasks if t in PNG_TASKS]
        names = dict.fromkeys(JSON_NAMES[t] for t in tasks if t in JSON_NAMES)
        return pngs + [self.folder / name for name in names]

    def add(self, source: Path, output: dict) -> None:
        """Write the label images of one image, and keep what belongs into the json files."""
        image_id = int(source.stem) if source.stem.isdigit() else source.stem
        self._keys.update(output)
        if "panoptic_seg" in output:
            ids, segments = output["panoptic_seg"]
            self._add_panoptic(source, image_id, ids.cpu().numpy(), segments)
        if "instances" in output:
            self._instances += self._coco_results(output["instances"].to("cpu"), image_id)
        if "sem_seg" in output:
            scores = output["sem_seg"]
            dtype = np.uint8 if len(scores) <= 256 else np.uint16
            labels = scores.argmax(0).cpu().numpy().astype(dtype)
            write_image(labels, self._png("semantic", source))

    def write(self) -> None:
        """Write the json files."""
        if "panoptic_seg" in self._keys:
            panoptic = {"images": self._images, "annotations": self._annotations}
            panoptic["categories"] = self._categories
            write_json(panoptic, self.folder / JSON_NAMES["panoptic"])
        if "instances" in self._keys:
            write_json(self._instances, self.folder / JSON_NAMES["instance"])

    def _png(self, task: str, source: Path) -> Path:
        return self.folder / task / f"{source.stem}.png"

    def _category(self, index: int) -> int:
        return self._dataset_ids.get(index, index)

    def _add_panoptic(self, source: Path, image_id: Any, ids: np.ndarray, segments: list) -> None:
        png = self._png("panoptic", source)
        write_image(encode_ids(ids), png)
        infos = [
            {
                "id": segment["id"],
                "category_id": self._category(segment["category_id"]),
                "isthing": int(segment["isthing"]),
                "area": int((ids == segment["id"]).sum()),
                "bbox": mask_box(ids == segment["id"]),
                "iscrowd": 0,
            }
            for segment in segments
        ]
        size = {"height": ids.shape[0], "width": ids.shape[1]}
        self._images.append({"id": image_id, "file_name": source.name, **size})
        self._annotations.append(
            {"image_id": image_id, "file_name": png.name, "segments_info": infos}
        )

    def _coco_results(self, instances: Instances, image_id: Any) -> list[dict]:
        results = [
            {
                "image_id": image_id,
                "category_id": self._category(int(instances.pred_classes[k])),
                "score": float(instances.scores[k]),
                "bbox": box,
            }
            for k, box in enumerate(_boxes_of(instances))
        ]
        if instances.has("pred_masks"):
            for result, mask in zip(results, instances.pred_masks.numpy(), strict=True):
                result["segmentation"] = _run_lengths(mask)
        return results


def _boxes_of(instances: Instances) -> list[list[float]]:
    """COCO's x, y, width and height of what each predicted box has in the image."""
    boxes = clip_boxes(instances.pred_boxes.tensor.numpy(), instances.image_size)
    return BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()


def _run_lengths(mask: np.ndarray) -> dict:
    """COCO's ``segmentation`` of a mask (H, W)."""
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode()}


def _categories(metadata, dataset_ids: dict[int, int]) -> list[dict]:
    """COCO's categories for the classes whose names are known."""
    if metadata is None:
        return []
    names = metadata.get("stuff_classes") or metadata.get("thing_classes") or []
    things = metadata.get("thing_dataset_id_to_contiguous_id")
    thing_indices = set(range(len(names)) if things is None else things.values())
    return [
        {"id": dataset_ids.get(i, i), "name": name, "isthing": int(i in thing_indices)}
        for i, name in enumerate(names)
    ]
