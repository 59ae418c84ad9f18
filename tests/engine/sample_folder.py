"""A miniature panoptic data set on disk, and the outputs of a model that is never wrong."""

import json

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures import BitMasks, Instances
from PIL import Image

THINGS = [{"id": 7, "name": "disc", "isthing": 1}, {"id": 3, "name": "box", "isthing": 1}]
STUFF = [{"id": 9, "name": "sky", "isthing": 0}, {"id": 1, "name": "sea", "isthing": 0}]
SIZE = (24, 32)


def write_panoptic_folder(root, train=4, val=3, categories=None, objects=2):
    """Images of vertical stripes: void, then stuff on the rest, then things as squares."""
    categories = THINGS + STUFF if categories is None else categories
    for split, count in (("train", train), ("val", val)):
        annotations, images = [], []
        for number in range(count):
            ids, segments = _segments(categories, objects, seed=number)
            _write_image(root, split, number, ids)
            name = f"{number:03d}"
            annotations.append(
                {"image_id": number, "file_name": f"{name}.png", "segments_info": segments}
            )
            height, width = ids.shape
            images.append(
                {"id": number, "file_name": f"{name}.png", "height": height, "width": width}
            )
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"panoptic_{split}.json").write_text(json.dumps(content))
    return root


def _segments(categories, objects, seed):
    """Ids (H, W) and segments_info; the leftmost two columns are void."""
    random = np.random.default_rng(seed)
    height, width = SIZE
    ids = np.zeros((max(height, 2 * objects), width), np.uint32)
    kinds = {flag: [c for c in categories if c["isthing"] == flag] for flag in (0, 1)}
    chosen = {}
    for i, category in enumerate(kinds[0]):
        chosen[256 * (i + 1) + 5] = category["id"]
        ids[:, 2 + i :: len(kinds[0])][:, : width - 2] = 256 * (i + 1) + 5
    ids[:, :2] = 0
    for i in range(objects if kinds[1] else 0):
        category = kinds[1][i % len(kinds[1])]
        chosen[i + 1] = category["id"]
        left = 2 + int(random.integers(0, width - 6))
        step = len(ids) // objects
        ids[i * step : (i + 1) * step - 1, left : left + 4] = i + 1
    segments = [_segment(ids == i, i, category) for i, category in chosen.items()]
    return ids, [segment for segment in segments if segment["area"]]


def _segment(mask, segment_id, category):
    box = mask_util.toBbox(mask_util.encode(np.asfortranarray(mask.astype(np.uint8))))
    return {
        "id": segment_id,
        "category_id": category,
        "iscrowd": 0,
        "area": int(mask.sum()),
        "bbox": [int(value) for value in box],
    }


def _write_image(root, split, number, ids):
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    for folder, pixels in ((f"panoptic_{split}", colours), (split, colours * 40)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / folder / f"{number:03d}.png")


def segment_ids(record):
    """Ids (H, W) of the record's PNG."""
    rgb = np.asarray(Image.open(record["pan_seg_file_name"]).convert("RGB")).astype(np.int64)
    return torch.from_numpy(rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2])


def perfect_output(record, num_classes):
    """What a perfect model returns for a panoptic record: all three results."""
    ids = segment_ids(record)
    classes = torch.full(ids.shape, num_classes - 1)  # anything where there is no truth
    for segment in record["segments_info"]:
        classes[ids == segment["id"]] = segment["category_id"]
    segments = [
        {"id": s["id"], "category_id": s["category_id"], "isthing": bool(s["isthing"])}
        for s in record["segments_info"]
        if not s.get("iscrowd")
    ]
    crowds = [s["id"] for s in record["segments_info"] if s.get("iscrowd")]
    kept = torch.where(torch.isin(ids, torch.tensor(crowds, dtype=ids.dtype)), 0, ids)
    return {
        "panoptic_seg": (kept.to(torch.int32), segments),
        "sem_seg": torch.nn.functional.one_hot(classes, num_classes).permute(2, 0, 1).float(),
        "instances": _instances(ids, [s for s in segments if s["isthing"]]),
    }


def _instances(ids, things):
    result = Instances(tuple(ids.shape))
    masks = [ids == thing["id"] for thing in things]
    result.pred_masks = torch.stack(masks) if masks else torch.zeros(0, *ids.shape).bool()
    result.scores = torch.ones(len(things))
    result.pred_classes = torch.tensor([t["category_id"] for t in things], dtype=torch.long)
    result.pred_boxes = BitMasks(result.pred_masks).get_bounding_boxes()
    return result
