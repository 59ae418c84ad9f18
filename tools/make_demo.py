"""The demonstration: train a small Mask2Former for some minutes, score it, draw what it sees.

python tools/make_demo.py [--output output/demo] [--minutes 13.5] [KEY VALUE ...]

Writes into --output: metrics.json, curve.png, predictions.png, and the checkpoint and logs in
train/. An output folder of an earlier run is renamed to output/demo.1, output/demo.2, ...
The shapes are drawn below $DETECTRON2_DATASETS (default: datasets/) on first use.
"""

import argparse
import os
import platform
import shlex
import sys
import time
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import default_setup
from detectron2.utils.logger import setup_logger

from mask_transformers.engine.setup import build_config
from mask_transformers.engine.trainer import Trainer
from mask_transformers.output_files import move_aside, write_json
from mask_transformers.prediction.grid import prediction_grid
from mask_transformers.visualization.training_curve import plot_metrics

CHECKOUT = Path(__file__).resolve().parents[1]
CONFIG = CHECKOUT / "configs/mask2former/mask2former_small_shapes_panoptic.yaml"
GRID_IMAGES = 8
# Points of the curve, were there time for all of SOLVER.MAX_ITER.
EVALUATIONS = 4


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder to write")
    parser.add_argument("--config-file", default=str(CONFIG), help="yaml of the model")
    parser.add_argument("--minutes", type=float, default=13.5, help="time budget of the training")
    parser.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE", help="config values")
    args = parser.parse_args(arguments)
    if args.minutes <= 0:
        parser.error(f"--minutes must be positive, not {args.minutes}")
    return args


def demo_config(args: argparse.Namespace) -> CfgNode:
    """The config of the run, frozen; KEY VALUE of the command line come last."""
    cfg = build_config(args.config_file)
    period = max(1, cfg.SOLVER.MAX_ITER // EVALUATIONS)
    own = ["OUTPUT_DIR", str(args.output / "train"), "SOLVER.MAX_MINUTES", args.minutes]
    own += ["TEST.EVAL_PERIOD", period, "SEED", 1]
    cfg = build_config(args.config_file, [*own, *args.opts])
    cfg.freeze()
    return cfg


def train(cfg: CfgNode) -> tuple[Trainer, dict]:
    """Train from the initial weights; the trainer and the results on the evaluation set."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    return trainer, results or Trainer.test(cfg, trainer.model)


def summary(results: dict, class_names: list[str]) -> dict:
    """The scores in percent, flat: PQ and its parts, per class, AP of masks and boxes, mIoU."""
    panoptic, masks = results.get("panoptic_seg", {}), results.get("segm", {})
    scores = {key: panoptic.get(key) for key in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")}
    per_class = {
        name: {kind: panoptic[f"{kind}-{name}"] for kind in ("PQ", "SQ", "RQ")}
        for name in class_names
        if f"PQ-{name}" in panoptic
    }
    scores |= {"per_class": per_class, "AP": masks.get("AP"), "AP50": masks.get("AP50")}
    scores["box_AP"] = results.get("bbox", {}).get("AP")
    return scores | {"mIoU": results.get("sem_seg", {}).get("mIoU")}


def circumstances(trainer: Trainer, start: float) -> dict:
    """What the scores cost and where they were reached."""
    trained = getattr(trainer.scheduler, "elapsed_seconds", None)
    return {
        "training_minutes": None if trained is None else round(trained / 60, 2),
        "total_minutes": round((time.monotonic() - start) / 60, 2),
        "iterations": trainer.iter,
        "images_per_iteration": trainer.cfg.SOLVER.IMS_PER_BATCH,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "device": trainer.cfg.MODEL.DEVICE,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
    }


def final_line(metrics: dict, output: Path) -> str:
    """What a reader wants to know at the end."""
    names = ("PQ", "SQ", "RQ", "AP", "box_AP", "mIoU")
    scores = ", ".join(
        f"{n.replace('_', ' ')} {metrics[n]:.1f}" for n in names if metrics[n] is not None
    )
    effort = f"{metrics['training_minutes']} minutes, {metrics['iterations']} iterations"
    pictures = f"{output / 'predictions.png'} and {output / 'curve.png'}"
    return f"{scores} after {effort}. Pictures: {pictures}"


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 with the reason if the config or a file is wrong."""
    start = time.monotonic()
    args = parse_arguments(arguments)
    try:
        cfg = demo_config(args)
        aside = move_aside(args.output)
        default_setup(cfg, args)
        setup_logger(cfg.OUTPUT_DIR, name="mask_transformers")
        trainer, results = train(cfg)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    dataset = cfg.DATASETS.TEST[0]
    metrics = summary(results, MetadataCatalog.get(dataset).get("stuff_classes") or [])
    metrics |= circumstances(trainer, start)
    write_json(metrics, args.output / "metrics.json")
    plot_metrics(Path(cfg.OUTPUT_DIR), args.output / "curve.png")
    weights = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    prediction_grid(cfg, weights, dataset, GRID_IMAGES, args.output / "predictions.png")
    if aside:
        print(f"The earlier {args.output} is now {aside}")
    print(final_line(metrics, args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
