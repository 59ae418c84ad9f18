import json

import numpy as np
import pytest
from PIL import Image

from mask_transformers.output_files import (
    move_aside,
    refuse_existing,
    write_atomically,
    write_image,
    write_json,
)


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail(file):
        file.write_text("half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG", ".bmp", ".tif", ".webp"])
def test_images_are_written_in_the_format_of_their_suffix(tmp_path, suffix):
    image = np.full((9, 7, 3), (200, 10, 30), np.uint8)
    write_image(image, tmp_path / "sub" / f"image{suffix}")
    read = np.asarray(Image.open(tmp_path / "sub" / f"image{suffix}").convert("RGB"))
    np.testing.assert_allclose(read, image, atol=8)


def test_json_is_written(tmp_path):
    write_json({"PQ": 70.5}, tmp_path / "metrics.json")
    assert (tmp_path / "metrics.json").read_text() == '{\n "PQ": 70.5\n}\n'


def test_numbers_that_json_lacks_become_null(tmp_path):
    nan, infinity = float("nan"), float("inf")
    write_json({"a": [nan, 1.5], "b": {"c": (infinity, "nan")}}, tmp_path / "x.json")
    wanted = {"a": [None, 1.5], "b": {"c": [None, "nan"]}}
    assert json.loads((tmp_path / "x.json").read_text()) == wanted


def test_existing_files_are_refused(tmp_path):
    there, absent = tmp_path / "there", tmp_path / "absent"
    there.touch()
    refuse_existing([absent])
    refuse_existing([there], overwrite=True)
    with pytest.raises(FileExistsError, match="there exists already; pass --overwrite"):
        refuse_existing([absent, there])


def test_folders_are_moved_to_the_first_free_number(tmp_path):
    folder = tmp_path / "demo"
    assert move_aside(folder) is None
    for number in (1, 2):
        folder.mkdir()
        (folder / str(number)).touch()
        assert move_aside(folder) == tmp_path / f"demo.{number}"
    assert (tmp_path / "demo.1" / "1").exists()
    assert (tmp_path / "demo.2" / "2").exists()
