"""From categories to the class names, colours and id maps that Detectron2's metadata hold.

Categories are COCO's dictionaries ``id``, ``name`` and, where they matter, ``isthing`` and
``color`` (RGB), in contiguous order: the first one is class 0 of the model.
"""

from collections.abc import Sequence
from typing import Any

from detectron2.utils.colormap import colormap


def panoptic_metadata(categories: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Things and stuff share the lists of names; the id maps tell them apart."""
    names, colors = [category["name"] for category in categories], category_colors(categories)
    ids: dict[bool, dict[int, int]] = {True: {}, False: {}}
    for index, category in enumerate(categories):
        ids[bool(category["isthing"])][category["id"]] = index
    return {
        "thing_classes": names,
        "stuff_classes": names,
        "thing_colors": colors,
        "stuff_colors": colors,
        "thing_dataset_id_to_contiguous_id": ids[True],
        "stuff_dataset_id_to_contiguous_id": ids[False],
        "evaluator_type": "coco_panoptic_seg",
        "label_divisor": 1000,
    }


def instance_metadata(categories: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All categories are things."""
    return {
        "thing_classes": [category["name"] for category in categories],
        "thing_colors": category_colors(categories),
        "thing_dataset_id_to_contiguous_id": contiguous_ids(categories),
        "evaluator_type": "coco",
    }


def box_metadata(categories: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All categories are things, of which only boxes are known."""
    return instance_metadata(categories) | {"evaluator_type": "coco_box"}


def semantic_metadata(categories: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All categories are stuff, and labels are classes of the model, whatever the ids."""
    return {
        "stuff_classes": [category["name"] for category in categories],
        "stuff_colors": category_colors(categories),
        "stuff_dataset_id_to_contiguous_id": {i: i for i in range(len(categories))},
        "evaluator_type": "sem_seg",
    }


def contiguous_ids(categories: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Category id to class of the model."""
    return {category["id"]: index for index, category in enumerate(categories)}


def category_colors(categories: Sequence[dict[str, Any]]) -> list[list[int]]:
    """RGB of every category: its own, or one of a fixed list."""
    palette = colormap(rgb=True).astype(int).tolist()
    return [list(c.get("color", palette[i % len(palette)])) for i, c in enumerate(categories)]
