"""Draw what a trained model sees in images and videos, or a grid beside the ground truth.

    python tools/demo.py --config-file output/demo/train/config.yaml \
        --weights output/demo/train/model_final.pth --input photo.jpg folder/ --output drawn/
"""

import argparse
import re
import sys
import time
from pathlib import Path

from mask_transformers.data.image_file import read_image_file
from mask_transformers.data.metadata import metadata_of
from mask_transformers.engine.setup import build_config
from mask_transformers.output_files import refuse_existing, write_image
from mask_transformers.prediction.grid import prediction_grid
from mask_transformers.prediction.inputs import find_inputs, is_video, overlay_paths
from mask_transformers.prediction.predict import build_predictor, predict_and_draw
from mask_transformers.prediction.raw import RawResults
from mask_transformers.prediction.video import UnreadableVideo, draw_video

CONFIG_KEY = re.compile(r"(MODEL|INPUT|DATASETS|TEST)(\.[A-Z0-9_]+)+")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; what contradicts itself ends the program with the reason."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="yaml file of the model")
    parser.add_argument("--weights", default="", help="checkpoint; the same as MODEL.WEIGHTS")
    parser.add_argument("--input", nargs="+", default=[], help="images, folders, globs, videos")
    parser.add_argument("--output", type=Path, help="folder of the overlays")
    parser.add_argument("--task", default="auto", choices=["panoptic", "instance", "semantic"])
    parser.add_argument("--score-threshold", type=float, default=0.5, help="of instances drawn")
    parser.add_argument("--save-raw", action="store_true", help="also write OUTPUT/raw/")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--data", default="", help="folder of your own data, for its classes")
    parser.add_argument(
        "--data-task", default="", choices=["panoptic", "instance", "semantic", "box"]
    )
    parser.add_argument("--grid", type=Path, help="write a grid with ground truth to this file")
    parser.add_argument("--dataset", default="", help="of the grid; default: DATASETS.TEST[0]")
    parser.add_argument("--count", type=int, default=8, help="images of the grid")
    # Not positional as in the other tools: --input takes all that follows it.
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config values")
    args = parser.parse_args(arguments)
    keys = [path for path in args.input if CONFIG_KEY.fullmatch(path) and not Path(path).exists()]
    if keys:
        parser.error(f"config values come after --opts: {keys[0]}")
    if not args.grid and not (args.input and args.output):
        parser.error("give --input and --output, or --grid")
    if args.input and not args.output:
        parser.error("--input needs --output")
    return args


def configure(args: argparse.Namespace):
    """The config of the model, with the weights and the task of the command line."""
    opts = list(args.opts)
    if args.weights:
        opts += ["MODEL.WEIGHTS", args.weights]
    if args.task != "auto":
        opts += ["MODEL.MASK_TRANSFORMER.TEST.TASKS", repr([args.task])]
    return build_config(args.config_file, opts, data=args.data, data_task=args.data_task)


def draw_grid(args: argparse.Namespace, cfg) -> None:
    """Write the grid of ``--grid``."""
    refuse_existing([args.grid], args.overwrite)
    metadata_of(cfg)  # registers the folder that the config names
    dataset = args.dataset or cfg.DATASETS.TEST[0]
    prediction_grid(
        cfg, cfg.MODEL.WEIGHTS, dataset, args.count, args.grid, args.task, args.score_threshold
    )
    print(f"{args.grid}: {args.count} images of {dataset}")


def draw_inputs(args: argparse.Namespace, cfg) -> int:
    """Write an overlay for every input; the number of inputs that could not be read."""
    targets = overlay_paths(find_inputs(args.input), args.output)
    metadata = metadata_of(cfg)
    raw = RawResults(args.output / "raw", metadata) if args.save_raw else None
    written = list(targets.values())
    if raw:
        tasks = list(cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS)
        written += [path for source in targets for path in raw.paths(source, tasks)]
    refuse_existing(written, args.overwrite)
    predictor = build_predictor(cfg)
    failures = []
    for source, target in targets.items():
        try:
            draw = draw_one_video if is_video(source) else draw_one_image
            line = draw(source, target, predictor, metadata, args, raw)
            print(f"{source}: {line} -> {target}", flush=True)
        except UnreadableInput as error:
            failures.append(str(error))
    if raw:
        raw.write()
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return len(failures)


class UnreadableInput(Exception):
    """An input file is corrupt or gone; the others are still processed."""


def draw_one_image(source, target, predictor, metadata, args, raw) -> str:
    """Predict and write one image; what is printed of it."""
    try:
        image = read_image_file(str(source), "BGR")
    except (OSError, ValueError) as error:
        raise UnreadableInput(error) from error
    overlay, output, line = predict_and_draw(
        predictor, image, metadata, args.task, args.score_threshold
    )
    write_image(overlay, target)
    if raw:
        raw.add(source, output)
    return line


def draw_one_video(source, target, predictor, metadata, args, raw) -> str:
    """Predict and write one video; what is printed of it."""
    if raw:
        print(f"{source}: --save-raw does not apply to videos", file=sys.stderr)
    start = time.perf_counter()

    def draw(frame):
        return predict_and_draw(predictor, frame, metadata, args.task, args.score_threshold)[0]

    try:
        frames = draw_video(source, target, draw)
    except UnreadableVideo as error:
        raise UnreadableInput(error) from error
    return f"{frames} frames, {(time.perf_counter() - start) / frames:.2f} s per frame"


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 if anything was wrong, with one line on it."""
    args = parse_arguments(arguments)
    try:
        cfg = configure(args)
        if args.grid:
            draw_grid(args, cfg)
        return 1 if args.input and draw_inputs(args, cfg) else 0
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
