"""Published checkpoint files: fetched by Detectron2's path manager, checked by their hash."""

import hashlib
import re
from pathlib import Path

from detectron2.utils.file_io import PathManager

# Release files end in the first digits of their own hash: model_final_94dc52.pkl.
_HASH_PREFIX = re.compile(r"[-_]([0-9a-f]{6,})\.(?:pkl|pth)$")
_ALGORITHMS = ("sha256", "md5")


def fetch(url: str) -> Path:
    """Local path of the file at ``url``; ValueError when its hash is not the one in its name."""
    path = Path(PathManager.get_local_path(url))
    check_hash(path, url)
    return path


def check_hash(path: Path, url: str) -> None:
    """ValueError names ``path`` if the hash prefix in the file name of ``url`` is not its own."""
    match = _HASH_PREFIX.search(url)
    if match is None:
        raise ValueError(f"{url} has no hash in its file name, so the file cannot be checked")
    digests = [_digest(path, algorithm) for algorithm in _ALGORITHMS]
    if not any(digest.startswith(match[1]) for digest in digests):
        raise ValueError(
            f"{path} is not the published file: its hash should begin with {match[1]}, but it is "
            f"{digests[0]} ({_ALGORITHMS[0]}); delete it and fetch it again"
        )


def _digest(path: Path, algorithm: str) -> str:
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()
