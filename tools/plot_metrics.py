"""Draw the loss and the evaluation scores of a training run.

python tools/plot_metrics.py output/nuclei [--output curve.png]
"""

import argparse
import sys
from pathlib import Path

from mask_transformers.output_files import refuse_existing
from mask_transformers.visualization.training_curve import plot_metrics


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 if the run cannot be read or the picture exists, with the reason."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="OUTPUT_DIR of the training")
    parser.add_argument("--output", type=Path, help="picture to write; default: RUN/curve.png")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    args = parser.parse_args(arguments)
    picture = args.output or args.run / "curve.png"
    try:
        refuse_existing([picture], args.overwrite)
        plot_metrics(args.run, picture)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
