"""Detectron2's built-in names give records that the mapper takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import mask_transformers.data.datasets  # noqa: F401
from mask_transformers.data import MaskTransformerMapper

SCRIPT = """
import json, sys
from detectron2.data import DatasetCatalog
from mask_transformers.data import MaskTransformerMapper
found = {}
for name, task, classes in json.loads(sys.argv[1]):
    mapper = MaskTransformerMapper(annotations=task, augmentations=[], num_classes=classes)
    instances = mapper(DatasetCatalog.get(name)[0])["instances"]
    found[name] = sorted(instances.gt_classes.tolist())
print(json.dumps(found))
"""


def test_names_are_registered():
    for split in ("train", "val"):
        panoptic = MetadataCatalog.get(f"coco_2017_{split}_panoptic")
        things = panoptic.thing_dataset_id_to_contiguous_id
        stuff = panoptic.stuff_dataset_id_to_contiguous_id
        assert sorted(things.values()) == list(range(80))
        assert sorted(stuff.values()) == list(range(80, 133))
        assert panoptic.thing_classes == panoptic.stuff_classes
        assert MetadataCatalog.get(f"ade20k_sem_seg_{split}").ignore_label == 255
        assert len(MetadataCatalog.get(f"ade20k_sem_seg_{split}").stuff_classes) == 150
        assert len(MetadataCatalog.get(f"coco_2017_{split}").thing_classes) == 80
        for name in (f"coco_2017_{split}", f"shapes_panoptic_{split}"):
            assert name in DatasetCatalog


def test_layout_of_the_built_in_names(tmp_path, data):
    image, ids = data.scene()
    coco, ade = tmp_path / "coco", tmp_path / "ADEChallengeData2016"
    data.save(coco / "val2017" / "a.jpg", image)
    data.save(coco / "panoptic_val2017" / "a.png", data.id_image(ids))
    panoptic = data.panoptic_json()
    for segment, category in zip(
        panoptic["annotations"][0]["segments_info"], (200, 90, 1), strict=True
    ):
        segment["category_id"] = category
    data.write_json(coco / "annotations" / "panoptic_val2017.json", panoptic)
    instances = data.instances_json()
    instances["images"].pop()
    instances["categories"] = [
        {"id": i, "name": name}
        for i, name in zip(
            MetadataCatalog.get("coco_2017_val").thing_dataset_id_to_contiguous_id,
            MetadataCatalog.get("coco_2017_val").thing_classes,
            strict=True,
        )
    ]
    instances["annotations"][0]["category_id"] = 90
    instances["annotations"][1]["category_id"] = 1
    data.write_json(coco / "annotations" / "instances_val2017.json", instances)
    data.save(ade / "images" / "validation" / "a.jpg", image)
    label = data.semantic_label()
    label[label == 2] = 149
    data.save(ade / "annotations_detectron2" / "validation" / "a.png", label)
    wanted = {
        "coco_2017_val_panoptic": [0, 79, 132],
        "coco_2017_val": [0, 79],
        "ade20k_sem_seg_val": [0, 1, 149],
    }
    names = [
        ("coco_2017_val_panoptic", "panoptic", 133),
        ("coco_2017_val", "instance", 80),
        ("ade20k_sem_seg_val", "semantic", 150),
    ]
    # The root is read when Detectron2 is imported, so another process it must be.
    environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(names)],
        env=environment,
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert json.loads(output.splitlines()[-1]) == wanted


def test_ade20k_void_is_dropped(tmp_path, data):
    label = np.full(data.size, 255, np.uint8)
    record = {
        "file_name": data.save(tmp_path / "a.jpg", data.scene()[0]),
        "sem_seg_file_name": data.save(tmp_path / "a.png", label),
    }
    mapper = MaskTransformerMapper(annotations="semantic", augmentations=[], num_classes=150)
    assert len(mapper(record)["instances"]) == 0


@pytest.mark.parametrize("split", ["train", "val"])
def test_contiguous_ids_fit_the_mapper(split):
    metadata = MetadataCatalog.get(f"coco_2017_{split}_panoptic")
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert MetadataCatalog.get(f"coco_2017_{split}").evaluator_type == "coco"
    assert MetadataCatalog.get(f"ade20k_sem_seg_{split}").evaluator_type == "sem_seg"
