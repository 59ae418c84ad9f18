import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image
from pycocotools import mask as coco_mask

from mask_transformers.data.datasets.shapes import register_shapes
from mask_transformers.data.datasets.shapes_files import VERSION, write_shapes

SIZE = (70, 50)  # width, height


@pytest.fixture(scope="module")
def demo(load_tool):
    return load_tool("demo")


@pytest.fixture
def run(demo, trained, tmp_path):
    """Function from further arguments to the exit code; writes to tmp_path / "out"."""

    def call(*arguments, output=True):
        weights = ["--weights", str(trained / "model.pth")]
        target = ["--output", str(tmp_path / "out")] if output else []
        config = ["--config-file", str(trained / "config.yaml")]
        return demo.main([*config, *weights, *target, *map(str, arguments)])

    return call


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "in" / "12.png"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_video(path, frames=4):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE)
    for k in range(frames):
        writer.write(np.full((SIZE[1], SIZE[0], 3), 50 * k, np.uint8))
    writer.release()


def test_images_folders_and_globs(run, photo, tmp_path, capsys):
    other = tmp_path / "more" / "gray.jpg"
    other.parent.mkdir()
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(other)
    (other.parent / "notes.txt").write_text("no image")
    assert run("--input", photo.parent, tmp_path / "m*" / "*.jpg") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["12.png", "gray.jpg"]
    overlay, image = (np.asarray(Image.open(p)) for p in (tmp_path / "out" / "12.png", photo))
    factor = overlay.shape[0] // image.shape[0]
    assert overlay.shape == (factor * SIZE[1], factor * SIZE[0], 3)
    assert (overlay != image.repeat(factor, 0).repeat(factor, 1)).any()
    assert "segments, " in capsys.readouterr().out


def test_the_order_of_channels_is_kept(demo, photo, tmp_path, monkeypatch, trained):
    """The predictor wants BGR, whatever INPUT.FORMAT is; the overlay is written as RGB."""
    Image.new("RGB", SIZE, (255, 0, 0)).save(photo)
    seen = []

    def predictor(image):
        seen.append(image)
        return {"panoptic_seg": (torch.zeros(SIZE[::-1], dtype=torch.int32), [])}

    monkeypatch.setattr(demo, "build_predictor", lambda cfg: predictor)
    config = str(trained / "config.yaml")
    arguments = ["--config-file", config, "--input", str(photo), "--output", str(tmp_path / "out")]
    assert demo.main(arguments) == 0
    assert seen[0][0, 0].tolist() == [0, 0, 255]
    assert np.asarray(Image.open(tmp_path / "out" / "12.png"))[0, 0].tolist() == [255, 0, 0]


def test_a_corrupt_file_does_not_stop_the_others(run, photo, tmp_path, capsys):
    (photo.parent / "0.png").write_bytes(b"nothing")
    (photo.parent / "1.png").write_bytes(photo.read_bytes()[:200])
    (photo.parent / "2.mp4").write_bytes(b"nothing")
    assert run("--input", photo.parent) == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["12.png"]
    errors = capsys.readouterr().err
    for name in ("0.png", "1.png", "2.mp4"):
        assert f"{photo.parent / name} cannot be read" in errors


def test_nothing_is_overwritten_unless_asked(run, photo, tmp_path, capsys):
    existing = tmp_path / "out" / "12.png"
    existing.parent.mkdir()
    existing.write_text("mine")
    (photo.parent / "0.png").write_bytes(photo.read_bytes())
    assert run("--input", photo.parent) == 1
    assert "12.png exists already; pass --overwrite" in capsys.readouterr().err
    assert [p.name for p in existing.parent.iterdir()] == ["12.png"], "refused before any work"
    assert existing.read_text() == "mine"
    assert run("--input", photo.parent, "--overwrite") == 0
    assert existing.read_bytes() != b"mine"


def test_an_input_is_never_replaced(run, photo, capsys):
    before = photo.read_bytes()
    out = ["--output", photo.parent, "--overwrite"]
    assert run("--input", photo, *out, output=False) == 1
    assert "would replace the input" in capsys.readouterr().err
    assert photo.read_bytes() == before


def test_videos_keep_their_frames(run, tmp_path):
    write_video(tmp_path / "clip.avi")
    assert run("--input", tmp_path / "clip.avi") == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["clip.mp4"]
    capture = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    frames = 0
    while capture.read()[0]:
        frames += 1
    assert frames == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "absent.jpg"], "absent.jpg"),
        (["--input", "absent/*.jpg"], "absent/*.jpg"),
        (["--input", __file__], "neither an image nor a video"),
        (["--input", "{photo}", "--opts", "MODEL.WEIGHTS", ""], "MODEL.WEIGHTS is empty"),
        (["--input", "{photo}", "--opts", "MODEL.WEIGHTS", "absent.pth"], "absent.pth"),
        (["--input", "{photo}", "--opts", "MODEL.NO_KEY", "1"], "MODEL.NO_KEY"),
        (["--input", "{photo}", "--data", "absent"], "absent"),
        (["--grid", "{photo}"], "exists already"),
        (["--grid", "grid.png", "--dataset", "no_data"], "'no_data' is not registered"),
    ],
)
def test_wrong_arguments_are_named(run, photo, capsys, demo, trained, arguments, message):
    arguments = [argument.format(photo=photo) for argument in arguments]
    if "MODEL.WEIGHTS" in arguments:
        config, out = str(trained / "config.yaml"), str(photo.parent / "out")
        code = demo.main(["--config-file", config, "--output", out, *arguments])
    else:
        code = run(*arguments)
    assert code == 1
    assert message in capsys.readouterr().err


def test_two_inputs_of_one_name_are_refused(run, photo, tmp_path, capsys):
    twin = tmp_path / "twin" / photo.name
    twin.parent.mkdir()
    twin.write_bytes(photo.read_bytes())
    assert run("--input", photo, twin) == 1
    assert "would both be written to" in capsys.readouterr().err


def test_the_command_line_is_checked(run, capsys):
    with pytest.raises(SystemExit):
        run("--input", "a.jpg", output=False)
    assert "--input and --output, or --grid" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--input", "a.jpg", "MODEL.WEIGHTS", "a.pth")
    assert "come after --opts: MODEL.WEIGHTS" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic", "box"])
def test_one_task(run, photo, tmp_path, task):
    assert run("--input", photo, "--task", task, "--save-raw") == 0
    written = {p.name for p in (tmp_path / "out" / "raw").iterdir()}
    expected = {"panoptic": {"panoptic", "panoptic.json"}, "semantic": {"semantic"}}
    assert written == expected.get(task, {"instances.json"})


def test_raw_results_are_in_coco_format(run, photo, tmp_path):
    assert run("--input", photo, "--save-raw") == 0
    raw = tmp_path / "out" / "raw"
    panoptic = json.loads((raw / "panoptic.json").read_text())
    assert panoptic["images"] == [{"id": 12, "file_name": "12.png", "height": 50, "width": 70}]
    (annotation,) = panoptic["annotations"]
    rgb = np.asarray(Image.open(raw / "panoptic" / annotation["file_name"])).astype(int)
    ids = rgb @ [1, 256, 65536]
    assert annotation["segments_info"], "a picture without segments would test nothing"
    for segment in annotation["segments_info"]:
        assert segment["area"] == (ids == segment["id"]).sum()
    categories = {c["id"]: c for c in panoptic["categories"]}
    assert categories[11]["name"] == "stripes"
    assert {s["category_id"] for s in annotation["segments_info"]} <= set(categories)
    found = json.loads((raw / "instances.json").read_text())
    assert found
    for instance in found:
        assert coco_mask.decode(instance["segmentation"]).shape == SIZE[::-1]
    assert np.asarray(Image.open(raw / "semantic" / "12.png")).shape == SIZE[::-1]


def test_a_grid_with_ground_truth(run, tmp_path, capsys):
    root = tmp_path / "data" / "shapes_panoptic" / f"v{VERSION}"
    write_shapes(root, "val", count=5, side_range=(64, 80))
    register_shapes(tmp_path / "data", prefix="grid_shapes")
    try:
        arguments = ["--dataset", "grid_shapes_val", "--count", 5]
        assert run("--grid", tmp_path / "grid.png", *arguments, output=False) == 0
        picture = np.asarray(Image.open(tmp_path / "grid.png"))
        # Five images in two columns, each enlarged at least to 320 pixels.
        assert picture.shape[1] > 5 * 250
        assert run("--grid", tmp_path / "one.png", *arguments[:2], "--count", 1) == 0
        assert np.asarray(Image.open(tmp_path / "one.png")).shape[1] < picture.shape[1]
    finally:
        for split in ("train", "val"):
            DatasetCatalog.remove(f"grid_shapes_{split}")
