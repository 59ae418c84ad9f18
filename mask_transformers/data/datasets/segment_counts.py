"""How many segments the images of a data set hold, and so how many queries a model needs."""

import math
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..image_file import read_image_file

# Queries beyond the largest number of segments, which are easier to match to.
SPARE = 1.25
FEWEST_QUERIES = 50


class SegmentCounts(NamedTuple):
    """Segments per image: the largest number, the 99th percentile and the median."""

    maximum: int
    p99: int
    median: int

    @property
    def queries(self) -> int:
        """Recommended MODEL.MASK_TRANSFORMER.QUERIES: the maximum and a quarter, in tens."""
        return max(FEWEST_QUERIES, math.ceil(self.maximum * SPARE / 10) * 10)

    @property
    def message(self) -> str:
        """The advice in words."""
        return (
            f"segments per image: median {self.median}, 99% of the images have at most {self.p99}, "
            f"largest {self.maximum}. A query finds at most one segment: use "
            f"MODEL.MASK_TRANSFORMER.QUERIES {self.queries}, or fewer if losing segments of the "
            "fullest images is acceptable."
        )


def suggest_queries(dataset_name: str) -> SegmentCounts:
    """Count the segments of every image of a registered data set; crowds do not count.

    Raises:
        ValueError: the data set has no images.
    """
    metadata = MetadataCatalog.get(dataset_name)
    counts = [
        len(segment_classes(record, metadata.get("ignore_label", 255)))
        for record in DatasetCatalog.get(dataset_name)
    ]
    return summarise_counts(counts)


def summarise_counts(counts: list[int]) -> SegmentCounts:
    """The summary of the numbers of segments of all images; ValueError if there are no images."""
    if not counts:
        raise ValueError("a data set without images needs no queries")
    p99, median = (int(np.percentile(counts, q, method="higher")) for q in (99, 50))
    return SegmentCounts(max(counts), p99, median)


def segment_classes(record: dict, ignore_label: int = 255) -> list[int]:
    """Contiguous class of every segment of a record; semantic labels are read from their file."""
    if "sem_seg_file_name" in record:
        pixels = read_image_file(record["sem_seg_file_name"], None, "label")
        return [label for label in np.unique(pixels).tolist() if label != ignore_label]
    segments = record["segments_info"] if "segments_info" in record else record["annotations"]
    return [segment["category_id"] for segment in segments if not segment.get("iscrowd", 0)]
