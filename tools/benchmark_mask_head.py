"""Cost of DETR's mask head at inference, by the number of queries that are kept.

    python tools/benchmark_mask_head.py [--queries 5 10 20 50 100]

Beside it the detector before it, and the official order of work: masks of all queries at once, with
the pixels and the finer features copied for each, of which the kept ones are chosen afterwards. On
the CPU, with random weights and a random image. Runs alternate in one process; peak memory is
measured in one process each.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from measuring import (
    add_measuring_arguments,
    alternating_seconds,
    generator,
    image_size,
    medians,
    random_images,
    random_model,
    relative_difference,
    rounded,
)
from peak_memory import peak_above_resident, peaks_of_processes

from mask_transformers.meta_arch.detr import DETR
from mask_transformers.meta_arch.detr_results import masks_of
from mask_transformers.structures import Scene

MODEL = "detr_R50_coco_panoptic"
SIZE = (800, 1066)
DETECTOR, OFFICIAL, OURS = "detector", "official", "kept_"  # what is measured


def official_masks(model: DETR, scene: Scene) -> torch.Tensor:
    """Mask logits (Q, h', w') of all queries of the first image, in the official order of work."""
    head = model.mask_head
    assert head is not None
    queries = scene.queries[0]
    maps = head.attention(queries, scene.memory[0], None)  # (Q, heads, h, w)
    x = torch.cat([_for_each(scene.projected, len(queries)), maps], dim=1)
    x = head.norms[0](head.convs[0](x)).relu()
    x = head.norms[1](head.convs[1](x)).relu()
    pyramid = zip(head.convs[2:], head.norms[2:], head.adapters, scene.fine, strict=True)
    for conv, norm, adapter, level in pyramid:
        finer = _for_each(adapter(level), len(queries))
        x = finer + F.interpolate(x, size=finer.shape[-2:], mode="nearest")
        x = norm(conv(x)).relu()
    return head.out(x).squeeze(1)


def _for_each(maps: torch.Tensor, queries: int) -> torch.Tensor:
    """Copies of maps (1, C, h, w), one for each query."""
    return maps.repeat(queries, 1, 1, 1)


def varied(scene: Scene) -> Scene:
    """A scene of the same shapes and layouts whose queries look at different pixels.

    With random weights all look alike, and features of an untrained backbone are so large that the
    masks of all queries would be equal, whatever the head does.
    """
    torch.manual_seed(1)
    return replace(
        scene,
        queries=8 * torch.randn_like(scene.queries),
        projected=torch.randn_like(scene.projected),
        memory=torch.randn_like(scene.memory),
        fine=[torch.randn_like(level) for level in scene.fine],
    )


def kept_queries(model: DETR, count: int) -> torch.Tensor:
    """``count`` of the queries, at random but the same in every process.

    ValueError when the model has fewer, or none are asked for.
    """
    every = model.decoder.query_embed.num_embeddings
    if not 1 <= count <= every:
        raise ValueError(f"--queries can be 1 to {every}, the queries of {MODEL}, not {count}")
    return torch.randperm(every, generator=generator())[:count]


def all_runs(model: DETR, args: argparse.Namespace) -> dict[str, Callable[[], torch.Tensor]]:
    """What is measured, by name; masks start from what the detector found."""
    images = random_images(1, args.size)
    scene = varied(model.detect(images, [args.size]))
    kept = {f"{OURS}{k}": kept_queries(model, k) for k in args.queries}

    def run_ours(index: torch.Tensor) -> torch.Tensor:
        return masks_of(partial(model.masks, scene, 0), {"panoptic": index})["panoptic"]

    runs = {name: lambda index=index: run_ours(index) for name, index in kept.items()}
    most = kept_queries(model, max(args.queries))
    return {
        DETECTOR: lambda: model.detect(images, [args.size]).queries,
        **runs,
        OFFICIAL: lambda: official_masks(model, scene)[most],
    }


def measure(model: DETR, args: argparse.Namespace) -> dict:
    """Median seconds, seconds for a query, and differences from the official order of work."""
    runs = all_runs(model, args)
    first = {name: run() for name, run in runs.items()}
    seconds = alternating_seconds(runs, args.repeats)
    median = medians(seconds)
    kept = {k: f"{OURS}{k}" for k in args.queries}
    return {
        "seconds": rounded(seconds),
        "median": {name: round(value, 4) for name, value in median.items()},
        "seconds_per_query": {name: round(median[name] / k, 5) for k, name in kept.items()},
        "times_faster": {name: round(median[OFFICIAL] / median[name], 2) for name in kept.values()},
        "difference": {
            name: relative_difference(first[name], first[OFFICIAL][:k]) for k, name in kept.items()
        },
    }


def parse_arguments() -> argparse.Namespace:
    """The command line; numbers of queries are sorted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, nargs="+", default=[5, 10, 20, 50, 100])
    add_measuring_arguments(parser)
    parser.add_argument("--memory-of", help="only measure the memory of this one, such as kept_5")
    args = parser.parse_args()
    args.size = image_size(parser, args.size, SIZE)
    args.queries = sorted(set(args.queries))
    args.names = [DETECTOR, *(f"{OURS}{k}" for k in args.queries), OFFICIAL]
    if args.memory_of and args.memory_of not in args.names:
        parser.error(f"--memory-of: choose from {', '.join(args.names)}")
    return args


@torch.no_grad()
def main() -> None:
    """Print time and memory as JSON."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    model = random_model(MODEL)
    if args.memory_of:
        print(peak_above_resident(all_runs(model, args)[args.memory_of]))
        return
    report = measure(model, args) | {"peak_mib": peaks_of_processes(__file__, args.names)}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
