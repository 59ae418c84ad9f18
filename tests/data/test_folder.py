import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from mask_transformers.data.datasets import register_folder_of, use_folder
from mask_transformers.data.datasets.absent_folder import require_folder_of
from mask_transformers.data.metadata import class_count, metadata_of, thing_classes_of

TASKS = {
    "panoptic": (3, ["panoptic", "instance", "semantic"]),
    "instance": (2, ["instance"]),
    "semantic": (3, ["semantic"]),
    "box": (2, ["box"]),
}


@pytest.mark.parametrize("task", TASKS)
def test_layouts_are_recognised(cfg, tmp_path, data, task):
    root = data.write_folder(tmp_path / "own", task)
    use_folder(cfg, root, task if task == "box" else "")
    classes, results = TASKS[task]
    assert (f"own_{task}_train",) == cfg.DATASETS.TRAIN
    assert (f"own_{task}_val",) == cfg.DATASETS.TEST
    assert str(root) == cfg.DATASETS.FOLDER
    assert cfg.DATASETS.FOLDER_TASK == cfg.INPUT.ANNOTATIONS == task
    assert classes == cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES
    assert results == cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS
    assert "/val/" in DatasetCatalog.get(f"own_{task}_val")[0]["file_name"]


def test_panoptic_is_preferred_unless_a_task_is_named(cfg, tmp_path, data):
    for task in TASKS:
        data.write_folder(tmp_path / "own", task)
    use_folder(cfg, tmp_path / "own")
    assert cfg.INPUT.ANNOTATIONS == "panoptic"
    use_folder(cfg, tmp_path / "own", "semantic")
    assert cfg.INPUT.ANNOTATIONS == "semantic"
    assert cfg.DATASETS.TRAIN == ("own_semantic_train",)


@pytest.mark.parametrize("task", TASKS)
def test_missing_splits(cfg, tmp_path, data, task):
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("other",)
    use_folder(cfg, data.write_folder(tmp_path / "tested", task, ["val"]), task)
    assert cfg.DATASETS.TRAIN == ()
    assert (f"tested_{task}_val",) == cfg.DATASETS.TEST
    use_folder(cfg, data.write_folder(tmp_path / "trained", task, ["train"]), task)
    assert (f"trained_{task}_train",) == cfg.DATASETS.TRAIN
    assert cfg.DATASETS.TEST == ()


def test_stuff_alone_has_no_instances(cfg, tmp_path, data):
    root = data.write_folder(tmp_path, "panoptic")
    content = data.panoptic_json()
    for category in content["categories"]:
        category["isthing"] = 0
    for split in ("train", "val"):
        data.write_json(root / f"panoptic_{split}.json", content)
    use_folder(cfg, root)
    assert cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS == ["panoptic", "semantic"]
    assert cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES == 3


@pytest.mark.parametrize("task", TASKS)
def test_a_written_config_finds_its_data_again(cfg, tmp_path, data, task):
    use_folder(cfg, data.write_folder(tmp_path / "own", task), task)
    written = cfg.dump()
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    again = cfg.load_cfg(written)
    before = again.dump()
    register_folder_of(again)
    register_folder_of(again)
    assert again.dump() == before
    for name in (*again.DATASETS.TRAIN, *again.DATASETS.TEST):
        assert len(DatasetCatalog.get(name)) == 2


@pytest.mark.parametrize("task", TASKS)
def test_a_written_config_knows_its_classes_without_the_data(cfg, tmp_path, data, task):
    folder = data.write_folder(tmp_path / "own", task)
    use_folder(cfg, folder, task)
    [name] = cfg.DATASETS.TEST
    before = MetadataCatalog.get(name).as_dict()
    written = cfg.dump()
    for split in (*cfg.DATASETS.TRAIN, name):
        DatasetCatalog.remove(split)
        MetadataCatalog.remove(split)
    folder.rename(tmp_path / "moved")
    again = cfg.load_cfg(written)
    things, count = thing_classes_of(again), class_count(metadata_of(again))
    assert count == again.MODEL.MASK_TRANSFORMER.NUM_CLASSES
    known = before.get("thing_dataset_id_to_contiguous_id")
    assert things == (None if known is None else set(known.values()))
    after = MetadataCatalog.get(name).as_dict()
    for key in ("thing_classes", "stuff_classes", "evaluator_type"):
        assert after.get(key) == before.get(key)
    with pytest.raises(FileNotFoundError, match=r"own \(DATASETS\.FOLDER\) does not exist"):
        require_folder_of(again)
    (tmp_path / "moved").rename(folder)
    register_folder_of(again)
    require_folder_of(again)
    assert len(DatasetCatalog.get(name)) == 2


def test_without_a_folder_nothing_is_registered(cfg):
    before = DatasetCatalog.list()
    register_folder_of(cfg)
    assert DatasetCatalog.list() == before


def test_a_folder_that_moved_is_named(cfg, tmp_path):
    cfg.DATASETS.FOLDER = str(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"gone.*DATASETS\.FOLDER"):
        register_folder_of(cfg)


def test_relative_and_home_paths(cfg, tmp_path, data, monkeypatch):
    data.write_folder(tmp_path / "own", "semantic")
    monkeypatch.chdir(tmp_path)
    use_folder(cfg, "own")
    assert Path(cfg.DATASETS.FOLDER) == tmp_path / "own"
    monkeypatch.setenv("HOME", str(tmp_path))
    use_folder(cfg, "~/own")
    assert Path(cfg.DATASETS.FOLDER) == tmp_path / "own"


def test_unknown_layouts_list_the_known_ones(cfg, tmp_path, data):
    for task in ("", "panoptic"):
        with pytest.raises(ValueError, match=r"(?s)panoptic: .*instance: .*semantic: "):
            use_folder(cfg, tmp_path, task)
    with pytest.raises(ValueError, match="FOLDER_TASK is 'boxes'"):
        use_folder(cfg, tmp_path, "boxes")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        use_folder(cfg, tmp_path / "nowhere")


def test_splits_with_different_classes(cfg, tmp_path, data):
    root = data.write_folder(tmp_path / "own", "panoptic")
    content = data.panoptic_json()
    content["categories"][1]["name"] = "ring"
    data.write_json(root / "panoptic_val.json", content)
    with pytest.raises(ValueError, match=r"own_panoptic_train and own_panoptic_val .*classes"):
        use_folder(cfg, root)


def test_class_lists(cfg, tmp_path, data):
    root = data.write_folder(tmp_path, "semantic")
    (root / "classes.json").write_text(json.dumps(["a", "b", "c", "d"]))
    use_folder(cfg, root)
    assert cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES == 4
    assert MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).ignore_label == 255


@pytest.mark.parametrize("text", ["{", "3", '{"names": ["a"]}', "[1, 2]"])
def test_broken_class_lists(cfg, tmp_path, data, text):
    root = data.write_folder(tmp_path, "semantic")
    (root / "classes.json").write_text(text)
    with pytest.raises(ValueError, match=r"classes\.json"):
        use_folder(cfg, root)
    (root / "classes.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"classes\.json"):
        use_folder(cfg, root)
