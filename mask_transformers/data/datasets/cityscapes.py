"""Cityscapes (fine annotations, 19 classes): panoptic, instance and semantic segmentation.

The class of the panoptic and of the semantic data set is the train id; instance segmentation knows
only the 8 things.
"""

from pathlib import Path
from typing import Any

from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from .builtin import add_instances, add_panoptic, add_semantic, datasets_root
from .records import require_files

FOLDER, SCRIPT = "cityscapes", "prepare_cityscapes.py"
SPLITS = ("train", "val")
IMAGE_SUFFIX, LABEL_SUFFIX = "_leftImg8bit.png", "_gtFine_labelTrainIds.png"

# "id" is the label id of the published label images.
CATEGORIES: list[dict[str, Any]] = sorted(CITYSCAPES_CATEGORIES, key=lambda c: c["trainId"])
THINGS = [category for category in CATEGORIES if category["isthing"]]


def register_cityscapes(datasets: Path) -> None:
    """Register ``cityscapes_fine_{panoptic,instance_seg,sem_seg}_{train,val}``."""
    labels = datasets / FOLDER / "gtFine"
    for split in SPLITS:
        images = datasets / FOLDER / "leftImg8bit" / split
        instances = labels / f"cityscapes_instance_{split}.json"
        pngs = labels / f"cityscapes_panoptic_{split}"
        add_panoptic(
            f"cityscapes_fine_panoptic_{split}",
            CATEGORIES,
            images,
            pngs,
            labels / f"{pngs.name}.json",
            script=SCRIPT,
            instances=instances,
            image_path=lambda image: image_path(image["id"]),
        )
        name = f"cityscapes_fine_instance_seg_{split}"
        add_instances(name, THINGS, images, instances, script=SCRIPT)
        name = f"cityscapes_fine_sem_seg_{split}"
        add_semantic(name, CATEGORIES, images, labels / split, label_records, script=SCRIPT)


def image_path(image_id: str) -> str:
    """Path below leftImg8bit/<split> of the image ``<city>_<sequence>_<frame>``."""
    return f"{image_id.split('_')[0]}/{image_id}{IMAGE_SUFFIX}"


def label_records(images: Path, labels: Path) -> list[dict[str, Any]]:
    """One record per image of ``images``/<city>, with its train ids below ``labels``.

    Raises:
        FileNotFoundError: there are no images, or labels are missing; the message names some.
    """
    files = sorted(images.glob(f"*/*{IMAGE_SUFFIX}"))
    if not files:
        raise FileNotFoundError(f"no images *{IMAGE_SUFFIX} in the folders of cities in {images}")
    records = []
    for file in files:
        image_id = file.name.removesuffix(IMAGE_SUFFIX)
        label = labels / file.parent.name / (image_id + LABEL_SUFFIX)
        records.append(
            {"file_name": str(file), "image_id": image_id, "sem_seg_file_name": str(label)}
        )
    what = f"label images (made by datasets/{SCRIPT}) of {images}"
    require_files(what, (record["sem_seg_file_name"] for record in records))
    return records


register_cityscapes(datasets_root())
