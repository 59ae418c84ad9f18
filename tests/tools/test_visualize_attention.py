import numpy as np
import pytest
from PIL import Image

SIZE = (70, 50)  # width, height


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("visualize_attention")


@pytest.fixture
def photos(tmp_path):
    """Two images in a folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        pixels = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def run(tool, trained):
    """Function from further arguments to the exit code."""
    weights = ["--weights", str(trained / "model.pth")]
    config = ["--config-file", str(trained / "config.yaml")]
    return lambda *arguments: tool.main([*config, *weights, *map(str, arguments)])


def test_all_images_stand_in_one_picture(run, photos, tmp_path, capsys):
    few = ["--queries", 2]
    assert run("--input", photos / "a.png", "--output", tmp_path / "one.png", *few) == 0
    assert run("--input", photos, "--output", tmp_path / "two.png", *few) == 0
    one, two = (np.asarray(Image.open(tmp_path / name)) for name in ("one.png", "two.png"))
    assert one.shape[1] == two.shape[1]
    assert two.shape[0] > 1.8 * one.shape[0]
    assert f"{photos / 'b.jpg'} -> {tmp_path / 'two.png'}" in capsys.readouterr().out


def test_a_folder_gets_a_picture_of_each(run, photos, tmp_path):
    assert run("--input", photos, "--output", tmp_path / "out", "--queries", 1) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.jpg"]
    few = Image.open(tmp_path / "out" / "a.png")
    assert run("--input", photos / "a.png", "--output", tmp_path / "more", "--queries", 3) == 0
    more = Image.open(tmp_path / "more" / "a.png")
    assert more.width == few.width
    assert more.height > 2 * few.height


@pytest.mark.parametrize("output", ["out", "one.png"])
def test_nothing_is_overwritten_unless_asked(run, photos, tmp_path, capsys, output):
    existing = tmp_path / output / "a.png" if output == "out" else tmp_path / output
    existing.parent.mkdir(exist_ok=True)
    existing.write_text("mine")
    arguments = ["--input", photos, "--output", tmp_path / output, "--queries", 1]
    assert run(*arguments) == 1
    assert f"{existing} exists already; pass --overwrite" in capsys.readouterr().err
    assert existing.read_text() == "mine"
    assert run(*arguments, "--overwrite") == 0
    assert existing.read_bytes() != b"mine"


@pytest.mark.parametrize("output", ["out", "one.png"])
def test_a_corrupt_file_does_not_stop_the_others(run, photos, tmp_path, capsys, output):
    (photos / "0.png").write_bytes(b"nothing")
    arguments = ["--input", photos, "--output", tmp_path / output, "--queries", 1]
    assert run(*arguments) == 1
    written = (tmp_path / "out" / "a.png") if output == "out" else tmp_path / output
    assert Image.open(written).width > 100
    assert f"{photos / '0.png'} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["in", "in/a.png"])
def test_an_input_is_never_replaced(run, photos, tmp_path, capsys, output):
    before = (photos / "a.png").read_bytes()
    assert run("--input", photos, "--output", tmp_path / output, "--overwrite") == 1
    assert "would replace the input" in capsys.readouterr().err
    assert (photos / "a.png").read_bytes() == before


def test_systems_without_a_picture_are_refused(tool, photos, tmp_path, capsys):
    config = tool.Path(__file__).parents[2] / "configs/maskformer"
    config = config / "maskformer_small_shapes_panoptic.yaml"
    output = ["--output", str(tmp_path / "one.png")]
    assert tool.main(["--config-file", str(config), "--input", str(photos), *output]) == 1
    error = capsys.readouterr().err
    assert "MODEL.META_ARCHITECTURE is 'MaskFormer'" in error
    assert "DETR, KMaXDeepLab, MaXDeepLab, Mask2Former" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "absent.jpg"], "absent.jpg"),
        (["--input", __file__], "neither an image nor a video"),
        (["--input", "{photos}", "--opts", "MODEL.NO_KEY", "1"], "MODEL.NO_KEY"),
        (["--input", "{photos}", "--weights", ""], "MODEL.WEIGHTS is empty"),
        (["--input", "{photos}", "--weights", "absent.pth"], "absent.pth"),
        (["--input", "{video}"], "is a video"),
    ],
)
def test_wrong_arguments_are_named(run, photos, tmp_path, capsys, arguments, message):
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"")
    arguments = [argument.format(photos=photos, video=video) for argument in arguments]
    weights = ["--opts", "MODEL.WEIGHTS", ""] if "" in arguments else []
    assert run("--output", tmp_path / "out", *arguments, *weights) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "a.jpg"], "--output"),
        (["--input", "a.jpg", "--output", "out", "--queries", "0"], "--queries must be at least 1"),
        (["--output", "out", "--input", "a.jpg", "MODEL.WEIGHTS", "a.pth"], "come after --opts"),
    ],
)
def test_the_command_line_is_checked(run, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err
