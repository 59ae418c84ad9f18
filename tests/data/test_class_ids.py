"""Category ids of data sets as the classes of a model."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from mask_transformers import model_zoo
from mask_transformers.data.datasets import use_folder
from mask_transformers.data.metadata import class_ids_of

CLASS_IDS = "MODEL.MASK_TRANSFORMER.CLASS_IDS"


def _config(dataset="coco_2017_val", class_ids="dataset"):
    cfg = model_zoo.get_config("mask2former_R50_coco_instance")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), (dataset,)
    cfg.MODEL.MASK_TRANSFORMER.CLASS_IDS = class_ids
    return cfg


@pytest.fixture
def register():
    """Function (metadata) → the name of a data set that has it."""
    names = []

    def call(**metadata):
        names.append(f"ids_{len(names)}")
        DatasetCatalog.register(names[-1], list)
        MetadataCatalog.get(names[-1]).set(**metadata)
        return names[-1]

    yield call
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_coco():
    ids = class_ids_of(_config())
    assert len(ids) == 80
    assert ids == sorted(ids)
    assert (ids[0], ids[11], ids[-1]) == (1, 13, 90)  # person, stop sign, toothbrush


def test_coco_panoptic_has_things_before_stuff():
    ids = class_ids_of(_config("coco_2017_val_panoptic"))
    assert ids[:80] == class_ids_of(_config())
    assert (len(ids), ids[80], max(ids)) == (133, 92, 200)


def test_contiguous_classes_need_no_ids():
    assert class_ids_of(_config(class_ids="contiguous")) is None
    assert class_ids_of(_config("nowhere", "contiguous")) is None


def test_order_of_the_classes(register):
    name = register(
        thing_dataset_id_to_contiguous_id={7: 2, 9: 0},
        stuff_dataset_id_to_contiguous_id={9: 0, 4: 1},
    )
    assert class_ids_of(_config(name)) == [9, 4, 7]


@pytest.mark.parametrize(
    "metadata",
    [
        {"stuff_classes": ["a", "b"], "evaluator_type": "sem_seg"},
        {"thing_dataset_id_to_contiguous_id": {}},
        {"thing_dataset_id_to_contiguous_id": {7: 1, 9: 2}},  # no class 0
        {"thing_dataset_id_to_contiguous_id": {7: 0, 9: 0}},  # two ids of one class
    ],
)
def test_a_data_set_without_ids_of_its_classes(register, metadata):
    name = register(**metadata)
    with pytest.raises(ValueError, match=rf"{CLASS_IDS} .*category id .*; found .*'{name}'"):
        class_ids_of(_config(name))


def test_no_data_set():
    with pytest.raises(ValueError, match=rf"{CLASS_IDS} .*found none that is registered"):
        class_ids_of(_config("nowhere"))


def test_a_folder_of_ones_own_data_has_contiguous_classes(tmp_path, data):
    cfg = _config()
    use_folder(cfg, data.write_folder(tmp_path / "own", "instance"))
    assert cfg.MODEL.MASK_TRANSFORMER.CLASS_IDS == "contiguous"
