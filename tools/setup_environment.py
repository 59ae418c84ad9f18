"""Install what is missing into the interpreter that runs this file; keep what is there.

Detectron2, torch and panopticapi are looked for first, so that an official or self-built copy is
never replaced. Only the standard library is used.
"""

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

TORCH = os.environ.get("TORCH", "torch==2.14.1 torchvision==0.29.1").split()
# The same Python files as Detectron2's, without its compiled part, which is not used here.
DETECTRON2 = "sal-detectron2==0.7.2"
DETECTRON2_REQUIREMENTS = [
    "black",
    "cloudpickle",
    "fvcore",
    "hydra-core",
    "iopath",
    "matplotlib",
    "omegaconf",
    "packaging",
    "pycocotools",
    "setuptools<81",
    "tabulate",
    "tensorboard",
    "termcolor",
    "tqdm",
    "yacs",
]


def pip_install(*arguments: str) -> None:
    """Run pip of this interpreter; a failure ends the set-up."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", *arguments]
    print("+", " ".join(command[3:]), flush=True)
    subprocess.run(command, check=True)


def missing(module: str) -> bool:
    """Whether ``module`` cannot be found; it is not imported."""
    return importlib.util.find_spec(module) is None


def install_detectron2() -> None:
    """Install the Python files of Detectron2 and, beside them, what they need."""
    pip_install(*DETECTRON2_REQUIREMENTS)
    site_packages = sysconfig.get_paths()["purelib"]
    pip_install(
        "--no-deps",
        "--only-binary=:all:",
        "--python-version=3.10",
        f"--target={site_packages}",
        DETECTRON2,
    )


def main() -> None:
    """Install torch, Detectron2, panopticapi and this package with the given extras."""
    extras = sys.argv[1] if len(sys.argv) > 1 else "dev,demo"
    if missing("torch"):
        pip_install(*TORCH)
    if missing("detectron2"):
        install_detectron2()
    if missing("panopticapi"):
        pip_install("--no-deps", "panopticapi-lite")
    pip_install("--editable", f"{Path(__file__).resolve().parent.parent}[{extras}]")


if __name__ == "__main__":
    main()
