"""Convert the labels of ADE20K (SceneParsing, 150 classes) to Detectron2's class ids.

Reads $DETECTRON2_DATASETS/ADEChallengeData2016/annotations and writes annotations_detectron2
beside it: 0 ("other") becomes 255, which is ignored, and class i becomes i - 1.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = ("training", "validation")
CLASSES = 150


def convert_label(label: np.ndarray) -> np.ndarray:
    """Label (H, W) uint8 with 0 for other and 1..150 to one with 0..149 and 255 for other."""
    return label.astype(np.uint8) - np.uint8(1)  # 0 wraps to 255


def convert_file(source: Path, target: Path) -> bool:
    """Write the converted ``source``; False if ``target`` holds it already.

    Raises:
        ValueError: ``source`` is not a label of ADE20K.
        FileExistsError: ``target`` holds something else.
    """
    label = np.asarray(Image.open(source))
    if label.ndim != 2 or label.max() > CLASSES:
        raise ValueError(f"{source} is not a label image with class ids 0..{CLASSES}")
    converted = convert_label(label)
    if target.exists():
        if not np.array_equal(np.asarray(Image.open(target)), converted):
            raise FileExistsError(f"{target} exists with other content; move it away first")
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    Image.fromarray(converted).save(partial, format="PNG")
    os.replace(partial, target)
    return True


def convert_split(root: Path, split: str) -> int:
    """Convert the labels of one split and return how many were written."""
    source = root / "annotations" / split
    files = sorted(source.glob("*.png"))
    if not files:
        raise FileNotFoundError(
            f"no labels in {source}; see datasets/README.md for where ADE20K belongs"
        )
    target = root / "annotations_detectron2" / split
    return sum(convert_file(file, target / file.name) for file in files)


def main() -> int:
    """Convert both splits; the exit code is 1 if something is missing or in the way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    parser.add_argument("--root", type=Path, default=default / "ADEChallengeData2016")
    root = parser.parse_args().root
    try:
        for split in SPLITS:
            written = convert_split(root, split)
            print(f"{root / 'annotations_detectron2' / split}: {written} files written")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
