"""Writing results without losing any: complete files only, and none that exists is replaced."""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file of the same suffix, which then becomes ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_image(image: np.ndarray, path: Path) -> None:
    """Write ``image`` ((H, W) or (H, W, 3) RGB) in the format that the suffix names."""
    options: dict[str, Any] = (
        {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else {}
    )
    write_atomically(path, lambda file: Image.fromarray(image).save(file, **options))


def write_json(content: Any, path: Path) -> None:
    """Write ``content`` as indented JSON; NaN and infinity, which JSON lacks, become null."""
    text = json.dumps(_finite_or_none(content), indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def refuse_existing(targets: Iterable[Path], overwrite: bool = False) -> None:
    """FileExistsError names the first of ``targets`` that is there, unless ``overwrite``."""
    existing = [path for path in targets if path.exists()]
    if existing and not overwrite:
        more = f" (and {len(existing) - 1} more files)" if len(existing) > 1 else ""
        raise FileExistsError(f"{existing[0]} exists already{more}; pass --overwrite to replace it")


def free_name(folder: Path) -> Path:
    """``folder``, or the first of ``folder.1``, ``folder.2``, … that does not exist."""
    free, number = folder, 0
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}.{number}")
    return free


def move_aside(folder: Path) -> Path | None:
    """Rename an existing ``folder`` to the first free ``folder.1``, ``folder.2``, …; that name."""
    if not folder.exists():
        return None
    aside = free_name(folder)
    folder.rename(aside)
    return aside
