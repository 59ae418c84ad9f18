"""Draw what the layers of a trained model look at: where its queries attend, or its clusters.

    python tools/visualize_attention.py --config-file output/demo/train/config.yaml \
        --weights output/demo/train/model_final.pth --input photo.jpg folder/ --output seen/

Of Mask2Former, where the surest queries may attend in each layer; of DETR, how much they do; of
kMaX-DeepLab, which cluster each pixel belongs to, and of MaX-DeepLab, which slot of the memory.
"""

import argparse
import re
import sys
from pathlib import Path

from mask_transformers.data.image_file import IMAGE_SUFFIXES, read_image_file
from mask_transformers.data.metadata import metadata_of
from mask_transformers.engine.setup import build_config
from mask_transformers.output_files import refuse_existing, write_image
from mask_transformers.prediction.attention_rows import attention_rows, rows_of_system
from mask_transformers.prediction.inputs import find_inputs, is_video, overlay_paths
from mask_transformers.prediction.predict import build_predictor
from mask_transformers.visualization.side_by_side import titled_rows

CONFIG_KEY = re.compile(r"(MODEL|INPUT|DATASETS|TEST)(\.[A-Z0-9_]+)+")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; what contradicts itself ends the program with the reason."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="yaml file of the model")
    parser.add_argument("--weights", default="", help="checkpoint; the same as MODEL.WEIGHTS")
    parser.add_argument("--input", nargs="+", required=True, help="images, folders, globs")
    parser.add_argument(
        "--output", type=Path, required=True, help="one picture (.png, ...), or a folder of them"
    )
    parser.add_argument("--queries", type=int, default=4, help="rows of an image, without clusters")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--data", default="", help="folder of your own data, for its classes")
    tasks = ["panoptic", "instance", "semantic", "box"]
    parser.add_argument("--data-task", default="", choices=tasks)
    # Not positional, as in demo.py: --input takes all that follows it.
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config values")
    args = parser.parse_args(arguments)
    keys = [path for path in args.input if CONFIG_KEY.fullmatch(path) and not Path(path).exists()]
    if keys:
        parser.error(f"config values come after --opts: {keys[0]}")
    if args.queries < 1:
        parser.error(f"--queries must be at least 1, got {args.queries}")
    return args


def output_paths(inputs: list[Path], output: Path) -> dict[Path, Path]:
    """Where each input is drawn to: all into one picture, or each into its own in a folder.

    ValueError: an input is a video or would be replaced, or two would share a file of the folder.
    """
    videos = [source for source in inputs if is_video(source)]
    if videos:
        raise ValueError(f"{videos[0]} is a video; only images are drawn")
    if output.suffix.lower() not in IMAGE_SUFFIXES or output.is_dir():
        return overlay_paths(inputs, output)
    if output.resolve() in {source.resolve() for source in inputs}:
        raise ValueError(f"the output would replace the input {output}")
    return dict.fromkeys(inputs, output)


def draw(args: argparse.Namespace) -> int:
    """Write the pictures; the number of inputs that could not be read."""
    opts = [*args.opts, *(["MODEL.WEIGHTS", args.weights] if args.weights else [])]
    cfg = build_config(args.config_file, opts, data=args.data, data_task=args.data_task)
    rows_of_system(cfg.MODEL.META_ARCHITECTURE)  # which refuses, before any work
    targets = output_paths(find_inputs(args.input), args.output)
    refuse_existing(dict.fromkeys(targets.values()), args.overwrite)
    metadata, predictor = metadata_of(cfg), build_predictor(cfg)
    rows, failures = {}, []
    for source, target in targets.items():
        try:
            image = read_image_file(str(source), "BGR")
        except (OSError, ValueError) as error:
            failures.append(str(error))
            continue
        rows.setdefault(target, []).extend(attention_rows(predictor, image, metadata, args.queries))
        if target != args.output:
            write_image(titled_rows(rows.pop(target)), target)
        print(f"{source} -> {target}", flush=True)
    for target, drawn in rows.items():
        write_image(titled_rows(drawn), target)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return len(failures)


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 if anything was wrong, with one line on it."""
    args = parse_arguments(arguments)
    try:
        return 1 if draw(args) else 0
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
