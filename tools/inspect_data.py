"""Show what a folder of one's own data holds, and how many queries a model needs for it."""

import argparse
import sys
from collections import Counter

import numpy as np
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from mask_transformers.config import add_mask_transformer_config
from mask_transformers.data import MaskTransformerMapper
from mask_transformers.data.datasets import use_folder
from mask_transformers.data.datasets.segment_counts import segment_classes, summarise_counts
from mask_transformers.data.image_file import read_image_file
from mask_transformers.data.label_maps import decode_ids


def main() -> int:
    """Inspect both splits; the exit code is 1 if the data cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="folder in one of the layouts of docs/custom_data.md")
    parser.add_argument("--task", default="", help="panoptic, instance, semantic or box")
    parser.add_argument("--check", action="store_true", help="read every file as training would")
    arguments = parser.parse_args()
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    try:
        use_folder(cfg, arguments.root, arguments.task)
        queries = [inspect(name) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)]
        if arguments.check:
            check(cfg)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\nRecommended: MODEL.MASK_TRANSFORMER.QUERIES {max(queries)}")
    return 0


def inspect(name: str) -> int:
    """Print the contents of a data set and return the number of queries recommended for it."""
    records, metadata = DatasetCatalog.get(name), MetadataCatalog.get(name)
    ignore_label = metadata.get("ignore_label", 255)
    classes = [segment_classes(record, ignore_label) for record in records]
    counts = summarise_counts([len(labels) for labels in classes])
    print(f"\n{name}\n  images: {len(records)}, {sum(not c for c in classes)} without segments")
    print(f"  width x height: {_sizes(records)}")
    print(f"  {counts.message}")
    totals = Counter(label for labels in classes for label in labels)
    names = metadata.get("stuff_classes") or metadata.thing_classes
    print("  segments per class:")
    for label, class_name in enumerate(names):
        print(f"    {label:4d} {class_name}: {totals.pop(label, 0)}")
    if totals:
        raise ValueError(f"{name}: labels hold ids without a class: {sorted(totals)}")
    return counts.queries


def check(cfg: CfgNode) -> None:
    """Read every record of both splits as training does; the first error is raised."""
    mapper = MaskTransformerMapper(
        annotations=cfg.INPUT.ANNOTATIONS,
        augmentations=[],
        num_classes=cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES,
        ignore_label=_ignore_label(cfg),
    )
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        records = DatasetCatalog.get(name)
        for record in records:
            mapper(record)
            _check_areas(record)
        print(f"\n{name}: all {len(records)} images and their annotations can be read")


def _check_areas(record: dict) -> None:
    """ValueError for areas that are not those of the PNG: they would make a wrong PQ, silently."""
    if "pan_seg_file_name" not in record:
        return
    png = record["pan_seg_file_name"]
    ids, counts = np.unique(decode_ids(read_image_file(png, "RGB")), return_counts=True)
    areas = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    for segment in record["segments_info"]:
        if segment["area"] != areas[segment["id"]]:
            raise ValueError(
                f"{png}: segment {segment['id']} has {areas[segment['id']]} pixels, but the json "
                f"says area {segment['area']}; PQ would be wrong"
            )


def _ignore_label(cfg: CfgNode) -> int:
    name = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)[0]
    return MetadataCatalog.get(name).get("ignore_label", 255)


def _sizes(records: list[dict]) -> str:
    sizes = np.array([_size(record) for record in records])  # (n, 2) width, height
    low, middle, high = (np.percentile(sizes, q, axis=0).astype(int) for q in (0, 50, 100))
    return "{}x{} smallest, {}x{} median, {}x{} largest (each side alone)".format(
        *low, *middle, *high
    )


def _size(record: dict) -> tuple[int, int]:
    if "width" in record and "height" in record:
        return record["width"], record["height"]
    with Image.open(record["file_name"]) as image:
        # Orientations 5 to 8 of EXIF swap the sides.
        swapped = image.getexif().get(0x0112, 1) >= 5
        return image.size[::-1] if swapped else image.size


if __name__ == "__main__":
    sys.exit(main())
