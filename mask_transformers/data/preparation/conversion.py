"""One conversion: what it needs, what it makes, and making it all or nothing."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...output_files import refuse_existing

NAMED = 3  # missing files named in one message
IMAGES_PER_CALL = 16  # handed to another process at once

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Conversion:
    """Conversion of one split for one task.

    ``missing`` says what is not there; ``convert`` fills temporary paths, in the order of
    ``makes`` (files, and folders that it finds empty), with so many processes and returns the
    number of images. Without ``makes`` there is only something to check.
    """

    task: str
    split: str
    missing: Callable[[], list[str]]
    makes: tuple[Path, ...] = ()
    convert: Callable[[Sequence[Path], int], int] = lambda paths, processes: 0

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.task} {self.split}"


def run_conversion(conversion: Conversion, overwrite: bool = False, processes: int = 1) -> str:
    """Convert, and say in words what was done; what exists already is kept.

    Raises:
        FileExistsError: only a part exists, and ``overwrite`` is false.
        OSError, ValueError: an annotation cannot be read; nothing is left behind.
    """
    if not conversion.makes:
        return f"{conversion.name}: all there"
    existing = [path for path in conversion.makes if path.exists()]
    if not overwrite and len(existing) == len(conversion.makes):
        return f"{conversion.name}: {existing[-1]} exists and is kept"
    refuse_existing(conversion.makes, overwrite)
    with _temporary(conversion.makes) as paths:
        count = conversion.convert(paths, processes)
    return f"{conversion.name}: {count} images -> {conversion.makes[-1]}"


def missing_folders(*folders: Path) -> list[str]:
    """A message for every folder that is not there or empty."""
    return [
        f"folder {folder} {'is empty' if folder.is_dir() else 'does not exist'}"
        for folder in folders
        if not folder.is_dir() or not any(folder.iterdir())
    ]


def missing_files(what: str, files: Iterable[Path]) -> list[str]:
    """One message, or none, about the ``files`` that do not exist."""
    missing = [file for file in files if not file.is_file()]
    if not missing:
        return []
    named = ", ".join(str(file) for file in missing[:NAMED])
    return [f"{len(missing)} {what}: {named}{', …' if len(missing) > NAMED else ''}"]


def for_all(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> Iterator[Result]:
    """Results of a picklable ``function`` in the order of ``items``."""
    if processes <= 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(function, items, chunksize=IMAGES_PER_CALL)


@contextmanager
def _temporary(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Paths beside ``targets`` that take their place if nothing goes wrong, the last one last."""
    temporary = [target.with_name(f".{target.name}.{os.getpid()}.tmp") for target in targets]
    try:
        for target, path in zip(targets, temporary, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.suffix:
                path.mkdir()
        yield temporary
        for target, path in zip(targets, temporary, strict=True):
            _replace(path, target)
    finally:
        for path in temporary:
            _remove(path)


def _replace(source: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.is_dir():  # a folder cannot be replaced in one step
        target.rename(old)
    os.replace(source, target)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
