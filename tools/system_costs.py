"""Parameters, multiply-adds, time and memory of the five systems.

    python tools/system_costs.py small        # the configs for shapes, 160 pixels
    python tools/system_costs.py published    # ResNet-50 for COCO, 640 pixels

Inference is the network up to class and mask logits of every query, on one image; a training step
is losses on random targets, gradients and AdamW as the config has it. On the CPU, random weights.
Every measurement has a process of its own, systems take turns, and medians are reported. Memory is
the peak above the loaded model. GFLOPs are 10⁹ multiply-adds (see flops.py). Parameters are those
that inference needs, without norms that are frozen, and in brackets those of the semantic head that
is there for training.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from cost_reports import REPORTS, System
from measured_process import in_process, median_of

from mask_transformers.visualization.comparison import markdown_table

ROOT = "MODEL.MASK_TRANSFORMER"
TIMED = ("inference", "training")  # what takes time and memory
PARTS = ("size", *TIMED)


def _published(config: str, *options: str) -> System:
    return System(config, list(options), "", "", 640, 512, 2)


# Label → config of the small model of each system, without the data, in order of year.
SMALL = {
    "DETR": "detr/detr_small_",
    "MaX-DeepLab": "max_deeplab/max_deeplab_small_",
    "MaskFormer": "maskformer/maskformer_small_",
    "Mask2Former": "mask2former/mask2former_small_",
    "kMaX-DeepLab": "kmax/kmax_small_",
}
# Everything is trained, and all see images of one size: they are padded by a pixel at most.
_ANY_SIZE = (f"{ROOT}.PADDED_SIZE", "[]")
_WHOLE = (f"{ROOT}.MASK_HEAD.FREEZE_DETECTOR", "False")
PRESETS: dict[str, dict[str, System]] = {
    "small": {label: System(config + "shapes_panoptic") for label, config in SMALL.items()},
    "published": {
        "DETR": _published("detr/detr_R50_coco_panoptic", *_WHOLE),
        "MaX-DeepLab": _published("max_deeplab/max_deeplab_S_coco_panoptic", *_ANY_SIZE),
        "MaskFormer": _published("maskformer/maskformer_R50_coco_panoptic"),
        "Mask2Former": _published("mask2former/mask2former_R50_coco_panoptic"),
        "kMaX-DeepLab": _published("kmax/kmax_R50_coco_panoptic", *_ANY_SIZE),
    },
}


def measure(systems: Mapping[str, System], args: argparse.Namespace) -> dict[str, dict]:
    """Label → part → report of all ``systems``, by ``args.repeats`` processes for each time."""
    reports: dict[str, dict[str, list[dict]]] = {
        label: {part: [] for part in PARTS} for label in systems
    }
    for turn in range(args.repeats):
        for part in TIMED if turn else PARTS:
            for label, system in systems.items():
                words = ["--measure", part, "--system", json.dumps(asdict(system))]
                words += ["--threads", str(args.threads), "--runs", str(args.runs)]
                words += ["--masks", str(args.masks)]
                reports[label][part].append(in_process(__file__, words))
                print(label, part, reports[label][part][-1], file=sys.stderr)
    return {
        label: {"size": found["size"][0], **{part: median_of(found[part]) for part in TIMED}}
        for label, found in reports.items()
    }


def cost_columns(report: Mapping[str, dict]) -> dict[str, str]:
    """Heading → cell, of one system."""
    size, inference, training = (report[part] for part in PARTS)
    idle = size["idle_parameters"]
    return {
        "parameters, M": _millions(size["parameters"])
        + (f" (+ {_millions(idle)})" if idle else ""),
        "GFLOPs": f"{size['flops'] / 1e9:.3g}",
        "inference, s": f"{inference['seconds']:.3g}",
        "inference, MiB": f"{inference['mib']:,.0f}",
        "training step, s": f"{training['seconds']:.3g}",
        "training step, MiB": f"{training['mib']:,.0f}",
    }


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}"


def cost_table(reports: Mapping[str, dict]) -> str:
    """Markdown table, and below it what the multiply-adds leave out."""
    columns = {label: cost_columns(report) for label, report in reports.items()}
    headings = list(next(iter(columns.values())))
    rows = [[label, *cells.values()] for label, cells in columns.items()]
    return markdown_table(["system", *headings], rows) + "\n" + uncounted_operations(reports)


def uncounted_operations(reports: Mapping[str, dict]) -> str:
    """A sentence on the operations that GFLOPs leave out."""
    names = {name for report in reports.values() for name in report["size"]["uncounted"]}
    listed = ", ".join(sorted(name.removeprefix("aten::") for name in names))
    return f"Not in GFLOPs, beside fvcore's list of free operations: {listed or 'nothing'}.\n"


def add_cost_arguments(parser: argparse._ActionsContainer) -> None:
    """How costs are measured."""
    parser.add_argument("--threads", type=int, default=2, help="of a cost measurement")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each time")
    parser.add_argument("--runs", type=int, default=3, help="timed runs in a process")
    parser.add_argument("--masks", type=int, default=10, help="masks in a random training image")


def check_cost_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with an error that names a number that is not positive."""
    for name in ("threads", "repeats", "runs", "masks"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be 1 or more, not {getattr(args, name)}")


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", nargs="?", choices=PRESETS)
    add_cost_arguments(parser)
    parser.add_argument("--measure", choices=PARTS, help="only this part, of --system")
    parser.add_argument("--system", type=json.loads, help="fields of a System as JSON")
    args = parser.parse_args(words)
    check_cost_arguments(parser, args)
    if bool(args.preset) == bool(args.measure and args.system):
        parser.error("give a preset, or --measure and --system")
    return args


def main() -> None:
    """Print the table, or one report as JSON."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.measure:
        print(json.dumps(REPORTS[args.measure](System(**args.system), args)))
        return
    print(cost_table(measure(PRESETS[args.preset], args)))


if __name__ == "__main__":
    main()
