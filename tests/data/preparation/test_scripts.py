"""What the scripts make of miniature data sets, and what they say where something is missing."""

import json

import numpy as np
import published_trees as trees
import pytest
from PIL import Image

from mask_transformers.data.label_maps import decode_ids


def read(path):
    return np.asarray(Image.open(path))


def segments_of(folder, json_file):
    """Per segment (category, crowd, area) of the only annotation, and the ids (H, W)."""
    [annotation] = json.loads(json_file.read_text())["annotations"]
    ids = decode_ids(read(folder / annotation["file_name"]))
    infos = annotation["segments_info"]
    assert {int(i) for i in np.unique(ids)} - {0} == {info["id"] for info in infos}
    for info in infos:
        rows, columns = np.nonzero(ids == info["id"])
        x, y, width, height = info["bbox"]
        assert (columns.min(), rows.min()) == (x, y)
        assert (columns.max() + 1, rows.max() + 1) == (x + width, y + height)
        assert info["area"] == len(rows)
    return {(i["category_id"], i["iscrowd"], i["area"]) for i in infos}, ids


def test_ade20k(tmp_path, prepare, capsys):
    root = trees.write_ade20k(tmp_path)
    assert prepare("ade20k", root) == 0
    for split, folder in (("train", "training"), ("val", "validation")):
        label = read(root / "annotations_detectron2" / folder / "a.png")
        assert label.tolist() == trees.regions(2, 0, 7, 12, 12, 255, np.uint8).tolist()
        name = f"ade20k_panoptic_{split}"
        found, ids = segments_of(root / name, root / f"{name}.json")
        # The person without instance annotation is void, as are the pixels of "other".
        assert found == {(2, 0, 216), (0, 0, 316), (7, 0, 60), (12, 0, 80)}
        assert (ids == 0).tolist() == trees.regions(0, 0, 0, 0, 1, 1, bool).tolist()
        instances = json.loads((root / f"ade20k_instance_{split}.json").read_text())
        found = [(a["id"], a["category_id"], a["area"]) for a in instances["annotations"]]
        assert found == [(1, 7, 60), (2, 12, 80)]
        assert len(instances["categories"]) == 100
    assert "semantic train: 1 images" in capsys.readouterr().out


def test_cityscapes(tmp_path, prepare):
    root = trees.write_cityscapes(tmp_path)
    assert prepare("cityscapes", root) == 0
    for split in ("train", "val"):
        stem = "aachen_000000_000019_gtFine"
        label = read(root / "gtFine" / split / "aachen" / f"{stem}_labelTrainIds.png")
        assert label.tolist() == trees.regions(10, 0, 13, 13, 11, 255, np.uint8).tolist()
        pngs = root / "gtFine" / f"cityscapes_panoptic_{split}"
        content = json.loads(pngs.with_suffix(".json").read_text())
        assert len(content["categories"]) == 19
        content["annotations"].pop()  # the other city
        (tmp_path / "one.json").write_text(json.dumps(content))
        found, ids = segments_of(pngs, tmp_path / "one.json")
        assert {(c, crowd) for c, crowd, _ in found} == {(23, 0), (7, 0), (26, 0), (24, 1)}
        assert np.unique(ids).tolist() == [0, 7, 23, 24, 26000, 26001]
        path = root / "gtFine" / f"cityscapes_instance_{split}.json"
        instances = json.loads(path.read_text())["annotations"]
        assert [a["id"] for a in instances] == list(range(1, 7))
        assert [(a["category_id"], a["iscrowd"]) for a in instances[:3]] == [
            (24, 1),
            (26, 0),
            (26, 0),
        ]


def test_mapillary(tmp_path, prepare):
    root = trees.write_mapillary(tmp_path)
    assert prepare("mapillary_vistas", root) == 0
    for split in ("training", "validation"):
        folder = root / split / "panoptic"
        found, ids = segments_of(folder, folder / "panoptic_2018.json")
        assert found == {(28, 0, 216), (14, 0, 316), (56, 0, 60), (56, 0, 80), (1, 0, 48)}
        assert (ids == 0).tolist() == trees.regions(0, 0, 0, 0, 0, 1, bool).tolist()


def test_published_panoptic_files_of_mapillary_are_kept(tmp_path, prepare, capsys):
    root = trees.write_mapillary(tmp_path, splits=("training",))
    published = root / "training" / "panoptic" / "panoptic_2018.json"
    published.parent.mkdir()
    published.write_text("{}")
    (root / "training" / "instances" / "a.png").unlink()
    assert prepare("mapillary_vistas", root, "--split", "train") == 0
    assert "panoptic train: all there" in capsys.readouterr().out
    assert prepare("mapillary_vistas", root, "--split", "train", "--overwrite") == 0
    assert published.read_text() == "{}"
    published.unlink()
    assert prepare("mapillary_vistas", root, "--split", "train", "--task", "panoptic") == 1
    assert "panoptic_2018.json: complete its folder" in capsys.readouterr().err


def test_coco(tmp_path, prepare):
    root = trees.write_coco(tmp_path)
    assert prepare("coco", root) == 0
    for split in ("train", "val"):
        label = read(root / f"panoptic_semseg_{split}2017" / "a.png")
        assert label.tolist() == trees.regions(119, 100, 0, 79, 0, 255, np.uint8).tolist()


def test_several_processes_make_the_same(tmp_path, prepare):
    one = trees.write_cityscapes(tmp_path / "one", splits=("val",))
    two = trees.write_cityscapes(tmp_path / "two", splits=("val",))
    assert prepare("cityscapes", one, "--split", "val") == 0
    assert prepare("cityscapes", two, "--split", "val", "--processes", "2") == 0
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


NEEDED = {
    "ade20k": ("images", "annotations", "annotations_instance"),
    "cityscapes": ("leftImg8bit", "gtFine"),
    "mapillary_vistas": ("training/images", "validation/images"),
    "coco": (
        "panoptic_train2017",
        "annotations/panoptic_val2017.json",
        "val2017",
        "annotations/instances_train2017.json",
    ),
}


@pytest.mark.parametrize("name", NEEDED)
def test_everything_that_is_missing_is_said_and_nothing_made(tmp_path, prepare, capsys, name):
    assert prepare(name, tmp_path) == 1
    error = capsys.readouterr().err
    for path in NEEDED[name]:
        assert str(tmp_path / path) in error
    assert list(tmp_path.iterdir()) == []


def test_a_part_can_be_made(tmp_path, prepare):
    root = trees.write_ade20k(tmp_path, splits=("validation",), instances=False)
    assert prepare("ade20k", root) == 1
    assert prepare("ade20k", root, "--task", "semantic", "--split", "val", "--check") == 0
    assert not (root / "annotations_detectron2").exists()
    assert prepare("ade20k", root, "--task", "semantic", "--split", "val") == 0
    assert [p.name for p in (root / "annotations_detectron2").iterdir()] == ["validation"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("ade20k", "annotations_instance/training/a.png"),
        ("cityscapes", "gtFine/train/zurich/zurich_000000_000019_gtFine_labelIds.png"),
        ("mapillary_vistas", "training/labels/a.png"),
    ],
)
def test_a_missing_label_is_named(tmp_path, prepare, capsys, name, label):
    write = {"mapillary_vistas": trees.write_mapillary}
    write = write.get(name) or getattr(trees, f"write_{name}")
    write(tmp_path)
    path = tmp_path / label
    path.rename(path.with_name("other.png"))
    assert prepare(name, tmp_path) == 1
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "label", "pixels", "message"),
    [
        ("ade20k", "annotations/training/a.png", np.full((2, 2), 151, np.uint8), "0..150"),
        ("ade20k", "annotations_instance/training/a.png", np.zeros((2, 2), np.uint8), "RGB"),
        ("ade20k", "annotations_instance/training/a.png", np.zeros((2, 2, 3), np.uint8), "size"),
        (
            "cityscapes",
            "gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png",
            np.zeros((2, 2, 3), np.uint8),
            "instance ids",
        ),
        (
            "mapillary_vistas",
            "training/instances/a.png",
            np.full((2, 2), 66 * 256, np.uint16),
            "v1.2",
        ),
        ("coco", "panoptic_train2017/a.png", np.ones((2, 2, 3), np.uint8), "does not list"),
    ],
)
def test_a_bad_file_is_named_and_nothing_half_made(
    tmp_path, prepare, capsys, name, label, pixels, message
):
    write = {"mapillary_vistas": trees.write_mapillary}
    (write.get(name) or getattr(trees, f"write_{name}"))(tmp_path)
    trees.save(tmp_path / label, pixels)
    assert prepare(name, tmp_path, "--split", "train") == 1
    error = capsys.readouterr().err
    assert str(tmp_path / label) in error
    assert message in error
    assert [p for p in tmp_path.rglob("*") if ".tmp" in p.name] == []
