"""A checkpoint in another layout: of the authors, of the library transformers, or ours.

    python tools/convert_checkpoint.py model_final_94dc52.pkl model.safetensors \
        --from official --to transformers \
        --config-file configs/mask2former/mask2former_R50_coco_panoptic.yaml

TARGET is written by torch.save or, with the suffix .safetensors, as such; it must not exist.
"""

import argparse
import sys
from pathlib import Path

import torch
from detectron2.modeling import build_model

from mask_transformers.backbones.initial_weights import without_initial_weights
from mask_transformers.checkpoint import (
    load_official_state_dict,
    load_transformers_state_dict,
    read_state_dict,
    to_transformers,
)
from mask_transformers.engine import build_config
from mask_transformers.output_files import write_atomically

READERS = {
    "official": load_official_state_dict,
    "native": load_official_state_dict,  # which knows our names too
    "transformers": load_transformers_state_dict,
}


def parse_arguments() -> argparse.Namespace:
    """The command line; options of the config come last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        type=Path,
        help="checkpoint (.pkl, .pth, .bin, .safetensors; the prefix of TensorFlow's files)",
    )
    parser.add_argument("target", type=Path, help="file to write; it must not exist")
    parser.add_argument("--from", dest="layout", required=True, choices=READERS)
    parser.add_argument("--to", required=True, choices=["transformers", "native"])
    parser.add_argument("--config-file", required=True, help="yaml file of the model")
    parser.add_argument(
        "--published-names",
        action="store_true",
        help="in transformers: the names of published files and of transformers 4",
    )
    parser.add_argument(
        "--timm-backbone",
        action="store_true",
        help="in transformers: the ResNet of a DETR is timm's, as dilation needs it",
    )
    parser.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE", help="config values")
    return parser.parse_args()


def convert(args: argparse.Namespace) -> int:
    """Write the file and return how many tensors it has; ValueError or OSError say why not."""
    if args.target.exists():
        raise FileExistsError(f"{args.target} exists already; choose another name")
    cfg = build_config(args.config_file, ["MODEL.DEVICE", "cpu", *args.opts])
    model = build_model(without_initial_weights(cfg))
    report = READERS[args.layout](model, read_state_dict(args.source))
    if report.unexpected:
        raise ValueError(f"{args.source} does not fit the model:\n{report}")
    state = model.state_dict()
    if args.to == "transformers":
        state = to_transformers(
            model, published_names=args.published_names, timm_backbone=args.timm_backbone
        )
    write_atomically(args.target, lambda path: write(state, path, bare=args.to == "transformers"))
    return len(state)


def write(state: dict[str, torch.Tensor], path: Path, bare: bool) -> None:
    """Write ``state`` in the format of the suffix, under "model" unless ``bare``."""
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        # Readers of transformers ask for the framework.
        save_file({k: v.contiguous() for k, v in state.items()}, path, {"format": "pt"})
    else:
        torch.save(state if bare else {"model": state}, path)


def one_line(message: str, most: int = 8) -> str:
    """A message of several lines in one, and no more than ``most`` of them."""
    lines = message.splitlines()
    more = f"; and {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]).replace(":; ", ": ") + more


def main() -> None:
    """Convert, and say so in one line."""
    args = parse_arguments()
    try:
        count = convert(args)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {one_line(str(error))}")
    print(f"{args.target}: {count} tensors")


if __name__ == "__main__":
    main()
