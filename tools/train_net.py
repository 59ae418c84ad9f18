#!/usr/bin/env python
"""Train or evaluate a mask transformer: see docs/training.md."""

import argparse
import sys

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup

from mask_transformers.backbones.initial_weights import without_initial_weights
from mask_transformers.engine import Trainer, build_config, launch, load_weights
from mask_transformers.engine.augmented_evaluation import (
    evaluate_with_augmentation,
    refuse_unfitting_augmentation,
)
from mask_transformers.engine.setup import (
    evaluation_dir,
    refuse_to_overwrite,
    set_up_logging,
    warn_of_nothing_to_resume,
)


def parse_arguments() -> argparse.Namespace:
    """Detectron2's arguments, and one's own data."""
    parser = default_argument_parser()
    parser.add_argument("--data", default="", metavar="ROOT", help="folder of one's own data")
    parser.add_argument(
        "--data-task", default="", help="panoptic, instance, semantic, box; found out if left out"
    )
    parser.set_defaults(dist_url="auto")
    return parser.parse_args()


def configure(args: argparse.Namespace) -> CfgNode:
    """The config that the arguments ask for."""
    return build_config(args.config_file, args.opts or [], args.data, args.data_task)


def main(args: argparse.Namespace) -> None:
    """One process of a training or an evaluation."""
    cfg = configure(args)
    cfg.freeze()
    default_setup(cfg, args)
    set_up_logging(cfg.OUTPUT_DIR)
    if args.eval_only:
        if not cfg.DATASETS.TEST:
            raise ValueError("DATASETS.TEST is empty: there is nothing to evaluate on")
        if cfg.TEST.AUG.ENABLED:
            refuse_unfitting_augmentation(cfg)
        model = Trainer.build_model(without_initial_weights(cfg))
        load_weights(model, cfg.MODEL.WEIGHTS)
        results = Trainer.test(cfg, model)
        if cfg.TEST.AUG.ENABLED:
            evaluate_with_augmentation(cfg, model, results)
        return
    if args.resume:
        warn_of_nothing_to_resume(cfg.OUTPUT_DIR)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


if __name__ == "__main__":
    arguments = parse_arguments()
    try:
        config = configure(arguments)
        if arguments.eval_only:
            # Chosen once, for all processes.
            folder = evaluation_dir(config.OUTPUT_DIR)
            arguments.opts = [*(arguments.opts or []), "OUTPUT_DIR", folder]
        elif not arguments.resume:
            refuse_to_overwrite(config.OUTPUT_DIR)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        sys.exit(f"error: {error}")
    launch(
        main,
        arguments.num_gpus,
        arguments.num_machines,
        arguments.machine_rank,
        arguments.dist_url,
        args=(arguments,),
        device=config.MODEL.DEVICE,
    )
