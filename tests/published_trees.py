"""Miniature data sets as their authors publish them, with nothing converted yet."""

import json

import numpy as np
from PIL import Image

SIZE = (24, 32)


def save(path, pixels, palette=None):
    """Write pixels as an image, in palette mode if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(palette)
    image.save(path)
    return path


def photograph(seed=0):
    """Noise (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def regions(sky, ground, first, second, group, void, dtype):
    """A map (H, W) of sky over ground, three objects in front of both, and two void columns."""
    pixels = np.full(SIZE, ground, dtype)
    pixels[:10] = sky
    pixels[4:14, 2:8], pixels[4:14, 10:18], pixels[16:22, 20:28] = first, second, group
    pixels[:, -2:] = void
    return pixels


def write_ade20k(root, splits=("training", "validation"), instances=True):
    """Sky and wall, a bed, a person; a second person has no instance annotation."""
    for split in splits:
        save(root / "images" / split / "a.jpg", photograph())
        label = regions(3, 1, 8, 13, 13, 0, np.uint8)
        save(root / "annotations" / split / "a.png", label)
        if instances:
            red = regions(0, 0, 1, 4, 0, 0, np.uint8)  # the first and the fourth of the 100
            green = regions(0, 0, 1, 2, 0, 0, np.uint8)
            pixels = np.stack([red, green, np.zeros_like(red)], axis=-1)
            save(root / "annotations_instance" / split / "a.png", pixels)
    return root


def write_cityscapes(root, splits=("train", "val")):
    """Sky and road, two cars, a group of persons; the ego vehicle is void."""
    for split in splits:
        for city in ("aachen", "zurich"):
            stem = f"{city}_000000_000019"
            save(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", photograph())
            folder = root / "gtFine" / split / city
            label = regions(23, 7, 26, 26, 24, 1, np.uint8)
            save(folder / f"{stem}_gtFine_labelIds.png", label)
            instances = regions(23, 7, 26000, 26001, 24, 1, np.uint16)
            save(folder / f"{stem}_gtFine_instanceIds.png", instances)
    return root


def write_mapillary(root, splits=("training", "validation")):
    """Sky and road, two cars, a bird; the last class of the labels is void."""
    for split in splits:
        save(root / split / "images" / "a.jpg", photograph())
        label = regions(27, 13, 55, 55, 0, 65, np.uint8)
        save(root / split / "labels" / "a.png", label, palette=[7] * 768)
        number = regions(0, 0, 0, 1, 0, 0, np.uint16)
        save(root / split / "instances" / "a.png", label.astype(np.uint16) * 256 + number)
    return root


def write_coco(root, splits=("train", "val")):
    """Sky and road, a person, a toothbrush and a crowd of persons."""
    for split in splits:
        ids = regions(70000, 256, 5, 6, 7, 0, np.uint32)
        png = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        save(root / f"{split}2017" / "a.jpg", photograph())
        save(root / f"panoptic_{split}2017" / "a.png", png)
        categories = {70000: 187, 256: 149, 5: 1, 6: 90, 7: 1}
        segments = [
            {"id": i, "category_id": c, "iscrowd": int(i == 7), "area": int((ids == i).sum())}
            for i, c in categories.items()
        ]
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
            "categories": [
                {"id": c, "name": str(c), "isthing": int(c < 100)}
                for c in sorted(set(categories.values()))
            ],
        }
        path = root / "annotations" / f"panoptic_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        path.with_name(f"instances_{split}2017.json").write_text("{}")
    return root
