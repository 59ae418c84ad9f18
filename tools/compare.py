"""Train several systems on the same data for the same time and write their scores side by side.

python tools/compare.py camvid --data CAMVID --minutes 20 --output output/camvid
python tools/compare.py pennfudan --data PENNFUDAN --minutes 25 --output output/pennfudan
python tools/compare.py nuclei --data NUCLEI --minutes 30 --output output/nuclei
python tools/compare.py shapes --minutes 13.5 --output output/shapes
python tools/compare.py systems --costs --minutes 30 --output output/systems

--data is a folder in a layout of docs/custom_data.md. Writes into --output: a folder for each run,
table.md and curves.png, with --costs also costs.json: what tools/system_costs.py measures, before
the trainings, is then in the table too. After an interruption the same command goes on: costs and
runs that are complete are kept, a run that is not is resumed.
"""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cost_reports import System
from system_costs import (
    SMALL,
    add_cost_arguments,
    check_cost_arguments,
    cost_columns,
    measure,
    uncounted_operations,
)

from mask_transformers.output_files import write_atomically
from mask_transformers.visualization.comparison import comparison_table, plot_comparison

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass
class Run:
    """One row: ``config`` is a path below configs/ without the suffix; it ends in the task."""

    label: str
    config: str
    options: list[str] = field(default_factory=list)


_MASK2FORMER, _MASKFORMER, _DETR = (SMALL[name] for name in ("Mask2Former", "MaskFormer", "DETR"))
_BASELINE = "perpixel/perpixel_baseline_"
_PLAIN = ["MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.MASKED", "False"]
_SOFTMAX = ["MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.CROSS_ATTENTION", "softmax"]
_THREE_LAYERS = ["MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.LAYERS", "3"]  # as the others
# 320×240 photographs with 11 classes.
_CAMVID = [
    "INPUT.LSJ.IMAGE_SIZE",
    "256",
    "INPUT.LSJ.MIN_SCALE",
    "0.8",
    "INPUT.LSJ.MAX_SCALE",
    "2.0",
]
_CAMVID += ["INPUT.MIN_SIZE_TEST", "320", "INPUT.MAX_SIZE_TEST", "432"]
_TASKS = "MODEL.MASK_TRANSFORMER.TEST.TASKS"
_EVERY_TASK = [_TASKS, '["panoptic", "instance", "semantic", "box"]']
_DETR_TASKS = [_TASKS, '["panoptic", "instance", "box"]']
_MASKS_AND_BOXES = [_TASKS, '["instance", "box"]']


def five_systems(data: str) -> dict[str, Run]:
    """Label → run of every system on the ``data``, the end of a config's name, in order of year."""
    return {
        label: Run(label, config + data, _DETR_TASKS if label == "DETR" else _EVERY_TASK)
        for label, config in SMALL.items()
    }


def with_plain_attention(run: Run, options: list[str]) -> Run:
    """The same with ordinary cross-attention, which the ``options`` choose."""
    label = f"{run.label}, plain cross-attention"
    return Run(label, run.config, [*run.options, *options])


_SHAPES = five_systems("shapes_panoptic")

COMPARISONS = {
    "camvid": [
        Run("Mask2Former", _MASK2FORMER + "custom_semantic", [*_CAMVID, *_THREE_LAYERS]),
        Run("MaskFormer", _MASKFORMER + "custom_semantic", _CAMVID),
        Run("PerPixelBaseline+", _BASELINE + "plus_small_custom_semantic", _CAMVID),
        Run("PerPixelBaseline", _BASELINE + "small_custom_semantic", _CAMVID),
    ],
    "nuclei": list(five_systems("cells_panoptic").values()),
    "pennfudan": [
        Run("Mask2Former", _MASK2FORMER + "custom_instance", _MASKS_AND_BOXES),
        Run("DETR", _DETR + "custom_instance", _MASKS_AND_BOXES),
    ],
    "shapes": [
        _SHAPES["Mask2Former"],
        with_plain_attention(_SHAPES["Mask2Former"], _PLAIN),
        _SHAPES["MaskFormer"],
        _SHAPES["DETR"],
        _SHAPES["kMaX-DeepLab"],
        with_plain_attention(_SHAPES["kMaX-DeepLab"], _SOFTMAX),
    ],
    "systems": list(_SHAPES.values()),
}


def folder_name(label: str) -> str:
    """A label as a folder name."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower().replace("+", " plus")).strip("_")


def task_of(run: Run) -> str:
    """What is read of a folder, which may hold annotations that would be preferred."""
    return run.config.rsplit("_", 1)[-1]


def command(run: Run, args: argparse.Namespace) -> list[str]:
    """The training as a command line of ``tools/train_net.py``."""
    words = [sys.executable, str(CHECKOUT / "tools/train_net.py")]
    words += ["--config-file", str(CHECKOUT / f"configs/{run.config}.yaml")]
    words += ["--data", args.data, "--data-task", task_of(run)] if args.data else []
    folder = args.output / folder_name(run.label)
    words += ["--resume"] if folder.exists() else []
    words += ["OUTPUT_DIR", str(folder), "SEED", "1"]
    words += ["SOLVER.MAX_MINUTES", str(args.minutes), "SOLVER.MAX_ITER", "100000"]
    words += ["TEST.EVAL_PERIOD", str(args.eval_period)]
    return [*words, *run.options, *args.options]


def refuse_other_budget(folder: Path, minutes: float) -> None:
    """ValueError when the run in ``folder``, if any, has another time budget."""
    config = folder / "config.yaml"
    if not config.is_file():
        return
    found = yaml.safe_load(config.read_text(encoding="utf-8"))["SOLVER"]["MAX_MINUTES"]
    if found != minutes:
        raise ValueError(f"{folder} was trained for {found} minutes: choose another --output")


def costs_of(runs: list[Run], args: argparse.Namespace) -> dict[str, dict]:
    """Label → what ``system_costs`` reports, from costs.json where that is there, else measured.

    ValueError: costs.json is of other runs.
    """
    path = args.output / "costs.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if list(found) != [run.label for run in runs]:
            raise ValueError(f"{path} holds the costs of other runs: choose another --output")
        return found
    systems = {
        run.label: System(
            run.config, [*run.options, *args.options], args.data, task_of(run) if args.data else ""
        )
        for run in runs
    }
    measured = measure(systems, args)
    args.output.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write_text(json.dumps(measured, indent=1)))
    return measured


def write_results(
    folders: dict[str, Path], costs: dict[str, dict], args: argparse.Namespace
) -> None:
    """Write the table and the curves, and print the table."""
    columns = {label: cost_columns(report) for label, report in costs.items()}
    table = comparison_table(folders, columns)
    if costs:
        table += "\n" + uncounted_operations(costs)
    write_atomically(args.output / "table.md", lambda path: path.write_text(table))
    plot_comparison(folders, args.output / "curves.png", args.minutes)
    print(table)


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", choices=sorted(COMPARISONS))
    parser.add_argument("--data", default="", help="folder of the data, where they are not ours")
    parser.add_argument("--minutes", type=float, default=20.0, help="training time of each run")
    parser.add_argument("--eval-period", type=int, default=500, help="iterations")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY VALUE", help="of all runs")
    parser.add_argument("--costs", action="store_true", help="measure time and memory, too")
    add_cost_arguments(parser.add_argument_group("with --costs"))
    args = parser.parse_args()
    check_cost_arguments(parser, args)
    return parser, args


def main() -> int:
    """Train what is not trained yet, then write the table and the curves; the exit code."""
    parser, args = parse_arguments()
    runs = COMPARISONS[args.comparison]
    folders = {run.label: args.output / folder_name(run.label) for run in runs}
    try:
        for folder in folders.values():
            refuse_other_budget(folder, args.minutes)
        costs = costs_of(runs, args) if args.costs else {}
    except ValueError as error:
        parser.error(str(error))
    for run in runs:
        folder = folders[run.label]
        if (folder / "model_final.pth").exists():
            continue
        code = subprocess.run(command(run, args), check=False).returncode
        if code:
            print(f"error: {run.label} ended with exit code {code}", file=sys.stderr)
            return code
    write_results(folders, costs, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
