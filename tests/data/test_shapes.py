import hashlib
import json
import multiprocessing
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from panopticapi.evaluation import pq_compute
from PIL import Image
from pycocotools.coco import COCO

from mask_transformers.data.datasets import shapes, shapes_files
from mask_transformers.data.datasets.shapes_drawing import draw_scene
from mask_transformers.data.datasets.shapes_files import (
    CATEGORIES,
    VERSION,
    shapes_scenes,
    write_shapes,
)
from mask_transformers.data.datasets.shapes_forms import STUFF, THINGS, shape_mask

SMALL = (40, 64)


def _digest(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def _ids(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(np.int64) @ [1, 256, 65536]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes") / "v1"
    write_shapes(root, "val", 12, SMALL)
    return root


@pytest.fixture(scope="module")
def scenes():
    return list(shapes_scenes("train", 150))


def test_files_are_genuine_coco_panoptic(root):
    content = json.loads((root / "panoptic_val.json").read_text())
    assert len(content["images"]) == len(content["annotations"]) == 12
    images = {image["id"]: image for image in content["images"]}
    classes = {category["id"]: category for category in content["categories"]}
    assert [c["name"] for c in classes.values() if c["isthing"]] == list(THINGS)
    assert [c["name"] for c in classes.values() if not c["isthing"]] == list(STUFF)
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        ids = _ids(root / "panoptic_val" / annotation["file_name"])
        picture = Image.open(root / "val" / image["file_name"])
        assert picture.mode == "RGB"
        assert picture.size == (image["width"], image["height"]) == ids.shape[::-1]
        segments = {segment["id"]: segment for segment in annotation["segments_info"]}
        assert len(segments) == len(annotation["segments_info"])
        assert set(np.unique(ids)) - {0} == set(segments)
        for number, segment in segments.items():
            assert segment["category_id"] in classes
            assert segment["area"] == (ids == number).sum()
            x, y, width, height = segment["bbox"]
            inside = ids[y : y + height, x : x + width] == number
            assert inside.sum() == segment["area"]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_every_ground_class_is_one_segment(root):
    for annotation in json.loads((root / "panoptic_val.json").read_text())["annotations"]:
        counts = Counter(segment["category_id"] for segment in annotation["segments_info"])
        assert all(counts[c["id"]] <= 1 for c in CATEGORIES if not c["isthing"])


def test_instances_agree_with_the_panoptic_labels(root):
    coco = COCO(str(root / "instances_val.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(THINGS)
    things = set(coco.getCatIds())
    for annotation in json.loads((root / "panoptic_val.json").read_text())["annotations"]:
        ids = _ids(root / "panoptic_val" / annotation["file_name"])
        expected = [s for s in annotation["segments_info"] if s["category_id"] in things]
        found = coco.loadAnns(coco.getAnnIds(imgIds=annotation["image_id"]))
        assert len(found) == len(expected)
        for instance, segment in zip(found, expected, strict=True):
            assert instance["category_id"] == segment["category_id"]
            assert np.array_equal(coco.annToMask(instance) > 0, ids == segment["id"])


def test_second_drawing_has_the_same_bytes(root, tmp_path):
    np.random.seed(5)
    write_shapes(tmp_path, "val", 12, SMALL)
    assert _digest(tmp_path) == _digest(root)


def test_splits_differ():
    train, val = (next(shapes_scenes(split, 1, (64, 64))) for split in ("train", "val"))
    assert not np.array_equal(train.image, val.image)


def test_drawing_is_that_of_this_version():
    """Fails when the drawing changes: then raise VERSION and renew the numbers."""
    drawn = [" ".join(scene.classes.values()) for scene in shapes_scenes("val", 3)]
    assert (VERSION, drawn) == (
        1,
        [
            "stripes dots checker triangle",
            "dots stripes star ring triangle square triangle ring",
            "dots checker stripes triangle star",
        ],
    )


def test_what_exists_is_kept(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_shapes(root, "val", 3, SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_interrupted_drawing_leaves_nothing_that_counts(tmp_path, monkeypatch, root):
    def interrupted(split, count, side_range):
        yield from shapes_scenes(split, 2, side_range)
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes_files, "shapes_scenes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path, "val", 12, SMALL)
    assert not _digest(tmp_path)
    monkeypatch.undo()
    (tmp_path / "val").mkdir()  # as if interrupted while the files were put in place
    (tmp_path / "val" / "old.jpg").touch()
    write_shapes(tmp_path, "val", 12, SMALL)
    assert _digest(tmp_path) == _digest(root)


def test_processes_that_draw_at_once(tmp_path, root):
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=write_shapes, args=(tmp_path, "val", 12, SMALL)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert _digest(tmp_path) == _digest(root)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot be written to .*file.*DETECTRON2_DATASETS"):
        write_shapes(tmp_path / "file" / "v1", "val", 1, SMALL)


def test_registered_records_and_metadata(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "write_shapes", lambda r, s: write_shapes(r, s, 4, SMALL))
    names = ["test_shapes_train", "test_shapes_val"]
    try:
        shapes.register_shapes(tmp_path, prefix="test_shapes")
        assert not list(tmp_path.iterdir()), "drawn before use"
        records = DatasetCatalog.get(names[1])
        metadata = MetadataCatalog.get(names[1])
        assert metadata.evaluator_type == "coco_panoptic_seg"
        assert metadata.thing_classes == metadata.stuff_classes == [*THINGS, *STUFF]
        assert list(metadata.thing_dataset_id_to_contiguous_id.values()) == [0, 1, 2, 3, 4]
        assert list(metadata.stuff_dataset_id_to_contiguous_id.values()) == [5, 6, 7]
        assert len(records) == 4
        for record in records:
            assert Path(record["file_name"]).parent == Path(metadata.image_root)
            assert Path(record["pan_seg_file_name"]).parent == Path(metadata.panoptic_root)
            ids = _ids(record["pan_seg_file_name"])
            assert ids.shape == (record["height"], record["width"])
            for segment in record["segments_info"]:
                assert segment["isthing"] == (segment["category_id"] < len(THINGS))
                assert (ids == segment["id"]).any()
        assert Path(metadata.panoptic_json).is_file()
        assert Path(metadata.json_file).is_file()
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_default_names_are_registered():
    assert {"shapes_panoptic_train", "shapes_panoptic_val"} <= set(DatasetCatalog.list())
    assert f"v{VERSION}" in MetadataCatalog.get("shapes_panoptic_val").panoptic_json


@pytest.mark.parametrize("name", THINGS)
def test_shapes_have_the_area_of_the_unit_circle(name):
    v, u = np.mgrid[-2:2:400j, -2:2:400j]
    mask = shape_mask(name, u, v)
    assert mask.mean() * 16 == pytest.approx(np.pi, rel=0.02)
    assert mask[200, 200] == (name != "ring")


@pytest.mark.parametrize("side", [8, 17])
def test_tiny_images_can_be_drawn(side):
    for seed in range(20):
        scene = draw_scene(np.random.default_rng(seed), side, side + 1)
        assert scene.image.shape == (side, side + 1, 3)
        assert set(np.unique(scene.ids)) - {0} == set(scene.classes)


def test_scenes_vary(scenes):
    counts = [sum(name in THINGS for name in scene.classes.values()) for scene in scenes]
    assert min(counts) == 1
    assert 9 <= max(counts) <= 12
    grounds = Counter(sum(name in STUFF for name in s.classes.values()) for s in scenes)
    assert all(grounds[number] > 15 for number in (1, 2, 3))
    unlabelled = np.mean([(scene.ids == 0).any() for scene in scenes])
    assert 0.3 < unlabelled < 0.8
    areas = [
        (scene.ids == index).sum() / scene.ids.size
        for scene in scenes
        for index, name in scene.classes.items()
        if name in THINGS
    ]
    low, high = np.quantile(areas, [0.05, 0.95])
    assert high > 10 * low
    assert {128 <= side <= 192 for scene in scenes for side in scene.ids.shape} == {True}


def test_perfect_masks_with_one_class_score_badly(root, tmp_path):
    """What a model scores that finds all segments but is blind to form."""
    truth = root / "panoptic_val.json"
    blind = json.loads(truth.read_text())
    things = {category["id"] for category in CATEGORIES if category["isthing"]}
    for annotation in blind["annotations"]:
        for segment in annotation["segments_info"]:
            segment["category_id"] = 1 if segment["category_id"] in things else 11
    (tmp_path / "blind.json").write_text(json.dumps(blind))
    folder = str(root / "panoptic_val")
    perfect = pq_compute(str(truth), str(truth), folder, folder)
    assert perfect["All"]["pq"] == 1
    scored = pq_compute(str(truth), str(tmp_path / "blind.json"), folder, folder)
    assert scored["Things"]["pq"] < 0.15
    assert scored["Stuff"]["pq"] < 0.35


@pytest.mark.parametrize(("names", "limit"), [(THINGS, 0.32), (STUFF, 0.5)])
def test_colours_and_areas_do_not_tell_the_class(scenes, names, limit):
    features, labels = [], []
    for scene in scenes:
        for index, name in scene.classes.items():
            if name in names:
                pixels = scene.image[scene.ids == index].astype(float)
                area = np.log((scene.ids == index).sum())
                features.append([*pixels.mean(0), *pixels.std(0), area])
                labels.append(names.index(name))
    x, y = np.array(features), np.array(labels)
    x = (x - x.mean(0)) / x.std(0)
    distances = np.linalg.norm(x[:, None] - x, axis=-1)
    np.fill_diagonal(distances, np.inf)  # leave one out
    nearest = y[np.argsort(distances, axis=1)[:, :9]]
    votes = np.stack([(nearest == label).sum(1) for label in range(len(names))], axis=1)
    accuracy = (votes.argmax(1) == y).mean()
    assert accuracy < limit, f"chance is {1 / len(names):.2f}"
