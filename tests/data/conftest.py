"""Synthetic data sets, written below tmp_path in the formats of one's own data."""

import json

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from mask_transformers.config import add_mask_transformer_config

HEIGHT, WIDTH = 24, 32


@pytest.fixture(autouse=True)
def _forget_data_sets():
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    cfg.DATASETS.TRAIN, cfg.INPUT.FORMAT, cfg.INPUT.RANDOM_FLIP = (), "RGB", "none"
    cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES = 3
    return cfg


def id_image(ids):
    """PNG pixels (H, W, 3) of segment ids (H, W)."""
    ids = np.asarray(ids, np.uint32)
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return str(path)


def scene():
    """Image (H, W, 3) and segment ids (H, W): stuff 70000, things 300 and 9, void 0.

    The image shows its segments, so that a test can tell whether both were moved alike.
    """
    ids = np.full((HEIGHT, WIDTH), 70000, np.uint32)
    ids[2:9, 3:12], ids[10:20, 14:29], ids[:, -2:] = 300, 9, 0
    shades = {70000: 40, 300: 120, 9: 200, 0: 0}
    image = np.vectorize(shades.get)(ids).astype(np.uint8)
    return np.repeat(image[..., None], 3, axis=-1), ids


SEGMENTS = [
    {"id": 70000, "category_id": 3, "iscrowd": 0, "area": 507},
    {"id": 300, "category_id": 4, "iscrowd": 0, "area": 63},
    {"id": 9, "category_id": 2, "iscrowd": 0, "area": 150},
]
# Neither the order of the list nor that of the ids has things first: the contiguous order has.
CATEGORIES = [
    {"id": 3, "name": "ground", "isthing": 0},
    {"id": 4, "name": "disc", "isthing": 1},
    {"id": 2, "name": "box", "isthing": 1},
]


def panoptic_json():
    """Two images, of which the second has no annotation."""
    sizes = {"height": HEIGHT, "width": WIDTH}
    return {
        "images": [
            {"id": 5, "file_name": "a.jpg", **sizes},
            {"id": 6, "file_name": "b.jpg", **sizes},
        ],
        "annotations": [
            {"image_id": 5, "file_name": "a.png", "segments_info": [dict(s) for s in SEGMENTS]}
        ],
        "categories": [dict(c) for c in CATEGORIES],
    }


def instances_json():
    """Two images; the first has a polygon, a run-length encoding and a crowd."""
    content = panoptic_json()
    content["categories"] = content["categories"][1:]
    _, ids = scene()
    column_major = (ids == 9).ravel(order="F").astype(int)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], column_major, [0]])))
    counts = np.diff(np.concatenate([[0], changes, [ids.size]])).tolist()
    rle = {"size": [HEIGHT, WIDTH], "counts": counts}
    shared = {"image_id": 5, "bbox": [3, 2, 9, 7], "area": 63, "iscrowd": 0}
    content["annotations"] = [
        {**shared, "id": 1, "category_id": 4, "segmentation": [[3, 2, 12, 2, 12, 9, 3, 9]]},
        {**shared, "id": 2, "category_id": 2, "segmentation": dict(rle)},
        {**shared, "id": 3, "category_id": 2, "segmentation": dict(rle), "iscrowd": 1},
    ]
    return content


def semantic_label():
    """Label (H, W) of the scene: box 0, disc 1, ground 2, void 255."""
    _, ids = scene()
    return np.vectorize({9: 0, 300: 1, 70000: 2, 0: 255}.get)(ids).astype(np.uint8)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def data():
    """The functions above, for test modules."""
    import types

    functions = (id_image, save, scene, panoptic_json, instances_json, semantic_label, write_json)
    return types.SimpleNamespace(
        **{function.__name__: function for function in functions},
        size=(HEIGHT, WIDTH),
        write_folder=write_folder,
    )


def write_folder(root, task, splits=("train", "val")):
    """Write a whole folder of one layout and return it."""
    image, ids = scene()
    for split in splits:
        for name in ("a", "b"):
            save(root / split / f"{name}.jpg", image)
        if task == "panoptic":
            save(root / f"panoptic_{split}" / "a.png", id_image(ids))
            write_json(root / f"panoptic_{split}.json", panoptic_json())
        elif task in ("instance", "box"):
            content = instances_json()
            for annotation in content["annotations"] if task == "box" else ():
                del annotation["segmentation"]
            write_json(root / f"instances_{split}.json", content)
        else:
            for name in ("a", "b"):
                save(root / f"labels_{split}" / f"{name}.png", semantic_label())
            classes = {"classes": ["box", "disc", "ground"], "ignore_label": 255}
            write_json(root / "classes.json", classes)
    return root
