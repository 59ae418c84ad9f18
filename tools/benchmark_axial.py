"""The cost of axial attention over the size of the map, beside attention over all pairs of pixels.

    python tools/benchmark_axial.py [--sizes 21 41 61 81]

The layer of the last stage of MaX-DeepLab-S on one square map; sides are those of images of 321 to
1281 pixels at stride 16. On the CPU, random weights. Every measurement has a process of its own;
times are medians, memory is the peak above the loaded layer. Time is fitted by a·HW + b·HW·(H+W):
projections of pixels, and pairs of pixels in one column or row. Full attention has the same sizes
of queries, keys and values, one projection, no positions, and a map of HW × HW for every head.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence

import torch
from axial_cost import (
    CHANNELS,
    HEADS,
    KEY_DEPTH,
    QKV,
    VALUE_DEPTH,
    attention_flops,
    axial_pairs,
    fit_cost,
    fitted_cost,
    full_map_bytes,
    projection_flops,
)
from measured_process import in_process, time_and_peak
from measuring import generator
from torch import nn

from mask_transformers.layers.axial_attention import MAX_LENGTH, AxialAttention
from mask_transformers.visualization.comparison import markdown_table

SIZES = [21, 41, 61, 81]
TASKS = ("inference", "training")  # forward; forward and backward
NOTHING = "–"


class FullAttention(nn.Module):
    """Every pixel looks at every other, through a map that is there as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(CHANNELS, QKV, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, value depth, H, W)."""
        depths = [KEY_DEPTH, KEY_DEPTH, VALUE_DEPTH]
        parts = self.qkv(x).flatten(2).split(depths, 1)  # (N, depth, L)
        query, key, value = (part.unflatten(1, (HEADS, -1)) for part in parts)
        logits = torch.einsum("nhdl,nhdm->nhlm", query * query.shape[2] ** -0.5, key)
        weights = logits.softmax(-1)  # (N, heads, L, L)
        return (
            torch.einsum("nhlm,nhdm->nhdl", weights, value)
            .flatten(1, 2)
            .view(len(x), VALUE_DEPTH, *x.shape[2:])
        )


def axial_attention() -> AxialAttention:
    """The layer that is measured."""
    return AxialAttention(CHANNELS, KEY_DEPTH, VALUE_DEPTH, HEADS)


FORMS: dict[str, Callable[[], nn.Module]] = {"axial": axial_attention, "full": FullAttention}


def report(form: str, task: str, side: int, repeats: int) -> dict[str, float]:
    """Seconds and MiB of one form of attention, in this process."""
    torch.manual_seed(0)
    layer = FORMS[form]().train(task == "training")
    x = torch.randn(1, CHANNELS, side, side, generator=generator())

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    def forward_and_backward() -> None:
        layer.zero_grad()
        layer(x.requires_grad_()).square().sum().backward()

    return time_and_peak(forward if task == "inference" else forward_and_backward, repeats)


Reports = dict[tuple[str, str, int], dict[str, float]]  # of (form, task, side)


def measure(args: argparse.Namespace) -> Reports:
    """All reports but those of full attention whose map is larger than ``args.full_limit``."""
    reports = {}
    for task in TASKS:
        for side in args.sizes:
            for form in FORMS:
                if form == "full" and full_map_bytes(side) > args.full_limit:
                    continue
                words = ["--measure", form, task, "--sizes", str(side)]
                words += ["--threads", str(args.threads), "--repeats", str(args.repeats)]
                reports[form, task, side] = in_process(__file__, words)
                print(form, task, side, reports[form, task, side], file=sys.stderr)
    return reports


def counts_table(sides: Sequence[int]) -> str:
    """What the formulas say."""
    headings = ["map", "pixels", "pairs H·W·(H+W)", "projections, GFLOPs", "attention, GFLOPs"]
    rows = [
        [
            f"{side}×{side}",
            f"{side**2:,}",
            f"{axial_pairs(side):,}",
            f"{projection_flops(side) / 1e9:.2f}",
            f"{attention_flops(side) / 1e9:.2f}",
            f"{full_map_bytes(side) / 2**20:,.0f}",
        ]
        for side in sides
    ]
    return markdown_table([*headings, "H·W × H·W map of 8 heads, MiB"], rows)


def task_table(task: str, reports: Reports, sides: Sequence[int]) -> str:
    """What was measured, with the fit and the growth from one size to the next."""
    axial = [reports["axial", task, side] for side in sides]
    seconds = [one["seconds"] for one in axial]
    fit = fit_cost(sides, seconds)
    rows = []
    for i, side in enumerate(sides):
        full = reports.get(("full", task, side))
        fitted = fitted_cost(fit, side)
        rows.append(
            [
                f"{side}×{side}",
                f"{1e3 * seconds[i]:.1f}",
                f"{1e3 * fitted:.1f} ({100 * (seconds[i] / fitted - 1):+.0f}%)",
                f"{seconds[i] / seconds[i - 1]:.2f}" if i else NOTHING,
                f"{side**2 / sides[i - 1] ** 2:.2f}" if i else NOTHING,
                f"{axial_pairs(side) / axial_pairs(sides[i - 1]):.2f}" if i else NOTHING,
                f"{axial[i]['mib']:,.0f}",
                f"{1e3 * full['seconds']:.1f}" if full else NOTHING,
                f"{full['mib']:,.0f}" if full else NOTHING,
            ]
        )
    headings = ["map", "ms", "fitted ms (measured beside it)", "times the one before"]
    headings += ["times H·W", "times H·W·(H+W)", "MiB", "full attention, ms", "MiB"]
    a, b = (1e9 * value for value in fit)
    formula = f"\nFitted: {a:,.1f} ns · HW + {b:,.2f} ns · HW·(H+W).\n"
    return markdown_table(headings, rows) + formula


def skipped_sizes(args: argparse.Namespace) -> str:
    """A sentence on the sizes that full attention was not measured on."""
    skipped = [f"{s}×{s}" for s in args.sizes if full_map_bytes(s) > args.full_limit]
    limit = f"{args.full_limit / 2**20:,.0f} MiB (--full-limit)"
    return (
        f"No full attention where one map is larger than {limit}: {', '.join(skipped) or 'none'}."
    )


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; sizes are sorted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="sides of the maps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each")
    parser.add_argument("--full-limit", type=int, default=2**31, help="bytes of the largest map")
    parser.add_argument("--measure", nargs=2, metavar=("FORM", "TASK"), help="only this one")
    args = parser.parse_args(words)
    args.sizes = sorted(set(args.sizes))
    if not 1 <= args.sizes[0] <= args.sizes[-1] <= MAX_LENGTH:
        parser.error(f"--sizes can be 1 to {MAX_LENGTH}, not {args.sizes}")
    if min(args.threads, args.repeats) < 1:
        parser.error("--threads and --repeats must be 1 or more")
    if args.measure and (args.measure[0] not in FORMS or args.measure[1] not in TASKS):
        parser.error(f"--measure: one of {', '.join(FORMS)}, then one of {', '.join(TASKS)}")
    if not args.measure and len(args.sizes) < 2:
        parser.error("--sizes: two or more, for the growth from one to the next")
    return args


def main() -> None:
    """Print the tables, or one report as JSON."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    if args.measure:
        form, task = args.measure
        print(json.dumps(report(form, task, args.sizes[0], args.repeats)))
        return
    reports = measure(args)
    print(counts_table(args.sizes))
    for task, name in zip(TASKS, ("Inference", "Forward and backward"), strict=True):
        print(f"{name}:\n\n{task_table(task, reports, args.sizes)}")
    print(skipped_sizes(args))


if __name__ == "__main__":
    main()
