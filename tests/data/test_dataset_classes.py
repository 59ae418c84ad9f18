"""Class tables of the built-in data sets, and what is said where their files are missing."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from mask_transformers.data.datasets.ade20k import register_ade20k
from mask_transformers.data.datasets.builtin import datasets_root
from mask_transformers.data.datasets.cityscapes import image_path, register_cityscapes
from mask_transformers.data.datasets.coco_semantic import register_coco_semantic
from mask_transformers.data.datasets.mapillary import register_mapillary

# Name without split → evaluator_type, classes, things.
SETS = {
    "ade20k_sem_seg": ("sem_seg", 150, 0),
    "ade20k_panoptic": ("coco_panoptic_seg", 150, 100),
    "ade20k_instance": ("coco", 100, 100),
    "cityscapes_fine_sem_seg": ("sem_seg", 19, 0),
    "cityscapes_fine_panoptic": ("coco_panoptic_seg", 19, 8),
    "cityscapes_fine_instance_seg": ("coco", 8, 8),
    "mapillary_vistas_sem_seg": ("sem_seg", 65, 0),
    "mapillary_vistas_panoptic": ("coco_panoptic_seg", 65, 37),
}
NAMES = [f"{name}_{split}" for name in SETS for split in ("train", "val")]
NAMES += ["coco_2017_train_sem_seg", "coco_2017_val_sem_seg"]


@pytest.mark.parametrize("name", SETS)
def test_counts(name):
    kind, classes, things = SETS[name]
    metadata = MetadataCatalog.get(f"{name}_val")
    assert metadata.evaluator_type == kind
    assert len(metadata.get("stuff_classes") or metadata.thing_classes) == classes
    ids = metadata.get("thing_dataset_id_to_contiguous_id", {})
    assert len(ids) == things
    names, colors = (
        metadata.get(f"stuff_{key}") or metadata.get(f"thing_{key}")
        for key in ("classes", "colors")
    )
    assert len(set(names)) == classes == len(colors)
    assert MetadataCatalog.get(f"{name}_train").as_dict().keys() == metadata.as_dict().keys()


def test_ade20k_instances_are_the_things_in_their_order():
    panoptic = MetadataCatalog.get("ade20k_panoptic_val")
    instance = MetadataCatalog.get("ade20k_instance_val")
    ids = instance.thing_dataset_id_to_contiguous_id
    # The id in the json is the class of the panoptic data set.
    assert panoptic.thing_dataset_id_to_contiguous_id == {i: i for i in ids}
    assert [panoptic.thing_classes[i] for i in ids] == instance.thing_classes
    assert instance.thing_classes[:4] == ["bed", "window", "cabinet", "person"]
    assert instance.thing_classes[-3:] == ["glass, drinking glass", "clock", "flag"]
    assert panoptic.stuff_classes[:3] == ["wall", "building", "sky"]


def test_cityscapes_classes_are_train_ids():
    panoptic = MetadataCatalog.get("cityscapes_fine_panoptic_val")
    assert panoptic.thing_dataset_id_to_contiguous_id == dict(
        zip((24, 25, 26, 27, 28, 31, 32, 33), range(11, 19), strict=True)
    )
    assert panoptic.stuff_dataset_id_to_contiguous_id[7] == 0
    assert image_path("aachen_000000_000019") == "aachen/aachen_000000_000019_leftImg8bit.png"


def test_mapillary_ids_start_at_one():
    metadata = MetadataCatalog.get("mapillary_vistas_panoptic_val")
    assert metadata.ignore_label == 65
    ids = {
        **metadata.thing_dataset_id_to_contiguous_id,
        **metadata.stuff_dataset_id_to_contiguous_id,
    }
    assert ids == {i: i - 1 for i in range(1, 66)}
    assert metadata.stuff_classes[13] == "Road"
    assert metadata.thing_classes[55] == "Car"
    assert metadata.stuff_classes[64] == "Ego Vehicle"


@pytest.fixture
def _elsewhere(tmp_path):
    registers = (register_ade20k, register_cityscapes, register_mapillary, register_coco_semantic)
    for register in registers:
        register(tmp_path)
    yield
    for register in registers:
        register(datasets_root())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("_elsewhere")
def test_what_is_missing_is_named_with_the_script_that_makes_it(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}.*datasets/prepare_\w+\.py"):
        DatasetCatalog.get(name)


@pytest.mark.usefixtures("_elsewhere")
def test_missing_train_ids_are_named_with_the_script(tmp_path, data):
    images = tmp_path / "cityscapes" / "leftImg8bit" / "val" / "aachen"
    (tmp_path / "cityscapes" / "gtFine" / "val").mkdir(parents=True)
    data.save(images / "aachen_000000_000019_leftImg8bit.png", data.scene()[0])
    with pytest.raises(FileNotFoundError, match=r"prepare_cityscapes.*labelTrainIds\.png"):
        DatasetCatalog.get("cityscapes_fine_sem_seg_val")


@pytest.mark.usefixtures("_elsewhere")
def test_an_unknown_category_is_named(tmp_path, data):
    root = tmp_path / "ADEChallengeData2016"
    data.save(root / "images" / "validation" / "a.jpg", data.scene()[0])
    content = data.instances_json()
    content["images"].pop()
    data.write_json(root / "ade20k_instance_val.json", content)
    with pytest.raises(ValueError, match=r"ade20k_instance_val\.json: category id 4 is none of"):
        DatasetCatalog.get("ade20k_instance_val")
