"""What the benchmarks share: random weights and images, alternating runs, differences."""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.structures import BitMasks, Instances
from torch import nn

from mask_transformers import model_zoo


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the images, threads and repeats."""
    parser.add_argument(
        "--size", type=int, nargs="+", help="height and width of the images, or a side of squares"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each")


def image_size(parser: argparse.ArgumentParser, given: list[int] | None, default) -> tuple:
    """(height, width) from the numbers of ``--size``, else ``default``; more are an error."""
    if not given:
        return default
    if len(given) > 2 or min(given) < 1:
        parser.error("--size takes one or two positive numbers, height and width")
    return given[0], given[-1]


def random_model(name: str) -> nn.Module:
    """A model of the zoo; no part of it is idle (offsets begin at zero otherwise)."""
    torch.manual_seed(0)
    model = model_zoo.build(name)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, _scale(parameter_name, parameter))
    return model


def _scale(name: str, parameter: torch.Tensor) -> float:
    """Deviation that keeps queries and pixels apart, for outputs that depend on all weights."""
    if name.endswith("query_embed.weight"):
        return 1.0
    fan_in = parameter[0].numel()
    # What attention adds is much the same for all tokens, and would drown what they are.
    added = name.endswith(("out_proj.weight", "linear2.weight"))
    return (0.25 if added else 1.0) * fan_in**-0.5


def random_images(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Images (count, 3, *size) as the network sees them."""
    return torch.randn(count, 3, *size, generator=generator())


def random_records(count: int, size: tuple[int, int], masks: int, classes: int = 133) -> list[dict]:
    """Training records of ``count`` images, each with ``masks`` rectangles of random classes."""
    random, (height, width) = generator(), size
    records = []
    for _ in range(count):
        instances = Instances((height, width))
        instances.gt_classes = torch.randint(classes, (masks,), generator=random)
        corners = torch.randint(min(height, width) // 2, (masks, 2), generator=random)
        rectangles = torch.zeros(masks, height, width, dtype=torch.bool)
        for mask, (y, x) in zip(rectangles, corners, strict=True):
            mask[y : y + height // 3, x : x + width // 3] = True
        instances.gt_masks = BitMasks(rectangles)
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        image = torch.randint(256, (3, height, width), generator=random, dtype=torch.uint8)
        records.append({"image": image, "instances": instances})
    return records


def generator() -> torch.Generator:
    """The same random numbers in every process."""
    return torch.Generator().manual_seed(1)


def alternating_seconds(
    runs: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, list[float]]:
    """Seconds of ``repeats`` calls of each of the ``runs``, which take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def rounded(seconds: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """In milliseconds' precision, for a report."""
    return {name: [round(s, 3) for s in values] for name, values in seconds.items()}


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())
