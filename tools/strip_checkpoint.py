"""A checkpoint's weights alone, without optimizer and schedule: a third of the size, or a sixth.

python tools/strip_checkpoint.py output/mine/model_final.pth output/mine/weights.pth [--half]
"""

import argparse
import sys
from pathlib import Path

import torch

from mask_transformers.checkpoint import read_state_dict
from mask_transformers.output_files import write_atomically


def strip(source: Path, target: Path, half: bool) -> None:
    """Write the weights of ``source`` to the new file ``target``, as float16 if ``half``."""
    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another name")
    if target.suffix != ".pth":
        raise ValueError(f"{target} must end in .pth, which says how to read it")
    state = read_state_dict(source)
    if half:
        state = {k: _halved(k, v) if v.is_floating_point() else v for k, v in state.items()}
    write_atomically(target, lambda path: torch.save({"model": state}, path))


def _halved(name: str, value: torch.Tensor) -> torch.Tensor:
    half = value.half()
    if half.isinf().any() and not value.isinf().any():
        raise ValueError(f"{name} has values that 16 bits cannot hold: leave out --half")
    return half


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="checkpoint of a training")
    parser.add_argument("target", type=Path, help="file to write; it must not exist")
    parser.add_argument("--half", action="store_true", help="in 16 bits")
    args = parser.parse_args()
    try:
        strip(args.source, args.target, args.half)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
