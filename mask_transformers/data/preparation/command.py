"""The command line that the scripts datasets/prepare_*.py share."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..datasets.builtin import datasets_root
from .conversion import Conversion, run_conversion


def main(
    description: str,
    folder: str,
    conversions: Callable[[Path], Sequence[Conversion]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Check everything first, then convert; the exit code is 1 if something is missing or wrong.

    ``conversions`` lists what can be done below a root, by default ``folder`` in the folder of
    data sets.
    """
    options = _parser(description, folder, conversions(Path())).parse_args(arguments)
    chosen = [
        conversion
        for conversion in conversions(options.root)
        if conversion.task in options.task and conversion.split in options.split
    ]
    missing = {message for conversion in chosen for message in conversion.missing()}
    for message in sorted(missing):
        print(f"missing: {message}", file=sys.stderr)
    if missing:
        print("See datasets/README.md; --task and --split convert a part.", file=sys.stderr)
        return 1
    if options.check:
        print(f"{options.root}: nothing is missing")
        return 0
    try:
        for conversion in chosen:
            print(run_conversion(conversion, options.overwrite, options.processes), flush=True)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser(
    description: str, folder: str, conversions: Sequence[Conversion]
) -> argparse.ArgumentParser:
    tasks = sorted({conversion.task for conversion in conversions})
    splits = sorted({conversion.split for conversion in conversions})
    root = datasets_root() / folder
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=root, help=f"default: {root}")
    parser.add_argument("--task", nargs="+", choices=tasks, default=tasks)
    parser.add_argument("--split", nargs="+", choices=splits, default=splits)
    parser.add_argument("--check", action="store_true", help="only say what is missing")
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser
