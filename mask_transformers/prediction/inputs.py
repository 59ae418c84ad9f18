"""Which files a prediction reads and which it writes."""

import glob
from collections.abc import Sequence
from pathlib import Path

from ..data.image_file import IMAGE_SUFFIXES

VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"}


def find_inputs(patterns: Sequence[str]) -> list[Path]:
    """The image and video files that ``patterns`` (files, folders, globs) name, each once.

    FileNotFoundError: nothing is there, or nothing in a folder is an image or a video. ValueError:
    a file named in full is neither.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        matches = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(pattern))]
        files = [file for match in matches for file in _files_of(match)]
        if path.is_file() and not files:
            known = " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
            raise ValueError(f"{path} is neither an image nor a video; known are {known}")
        if not files:
            raise FileNotFoundError(f"no image and no video is found at {pattern}")
        found.update(dict.fromkeys(files))
    return list(found)


def _files_of(path: Path) -> list[Path]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    return [
        f for f in files if f.suffix.lower() in known and f.is_file() and not f.name.startswith(".")
    ]


def is_video(path: Path) -> bool:
    """Whether the suffix of ``path`` is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def overlay_paths(inputs: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where the overlay of each input goes: images keep their name, videos become ``.mp4``.

    ValueError: two inputs would share an output, or an output would replace an input.
    """
    targets: dict[Path, Path] = {}
    for source in inputs:
        target = folder / (f"{source.stem}.mp4" if is_video(source) else source.name)
        twins = [other for other, taken in targets.items() if taken == target]
        if twins:
            raise ValueError(f"{twins[0]} and {source} would both be written to {target}")
        targets[source] = target
    originals = {source.resolve() for source in inputs}
    for source, target in targets.items():
        if target.resolve() in originals:
            raise ValueError(f"the output of {source} would replace the input {target}")
    return targets
