import pytest

from mask_transformers.data.preparation.conversion import Conversion, run_conversion


def conversion(root, content="new", fails=False):
    """Makes a folder with one file, and a file."""

    def convert(paths, processes):
        folder, file = paths
        (folder / "inside").write_text(content)
        if fails:
            raise ValueError("a bad label")
        file.write_text(content)
        return 1

    return Conversion("task", "split", list, (root / "folder", root / "file.json"), convert)


def contents(root):
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}


MADE = {"folder/inside": "new", "file.json": "new"}


def test_what_exists_is_kept_unless_told_otherwise(tmp_path):
    assert "1 images" in run_conversion(conversion(tmp_path))
    assert contents(tmp_path) == MADE
    assert "exists and is kept" in run_conversion(conversion(tmp_path, "newer"))
    assert contents(tmp_path) == MADE
    run_conversion(conversion(tmp_path, "newer"), overwrite=True)
    assert set(contents(tmp_path).values()) == {"newer"}


def test_a_part_of_it_is_not_completed_silently(tmp_path):
    run_conversion(conversion(tmp_path))
    (tmp_path / "file.json").unlink()
    with pytest.raises(FileExistsError, match="--overwrite"):
        run_conversion(conversion(tmp_path, "newer"))
    assert contents(tmp_path) == {"folder/inside": "new"}
    run_conversion(conversion(tmp_path, "newer"), overwrite=True)
    assert set(contents(tmp_path).values()) == {"newer"}


def test_failure_leaves_everything_as_it_was(tmp_path):
    with pytest.raises(ValueError, match="a bad label"):
        run_conversion(conversion(tmp_path, fails=True))
    assert list(tmp_path.iterdir()) == []
    run_conversion(conversion(tmp_path))
    with pytest.raises(ValueError, match="a bad label"):
        run_conversion(conversion(tmp_path, "newer", fails=True), overwrite=True)
    assert contents(tmp_path) == MADE
