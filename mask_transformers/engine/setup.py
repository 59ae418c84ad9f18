"""From command-line arguments to a config."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import add_mask_transformer_config
from ..data.datasets.folder import register_folder_of, use_folder
from ..output_files import free_name
from .config_file import merge_config_file, merge_options

logger = logging.getLogger(__name__)
PACKAGE = __name__.partition(".")[0]


def build_config(
    config_file: str = "", opts: Sequence = (), data: str = "", data_task: str = ""
) -> CfgNode:
    """The full config, not frozen: defaults, then the file, the data folder, the options.

    ``opts`` is ``[KEY, VALUE, …]``; ``data`` the root of a data set of one's own and ``data_task``
    what to read of it. Without a GPU, "cuda" becomes "cpu" unless ``opts`` ask for it. Errors
    (ValueError, FileNotFoundError) name the file and the key.
    """
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    if config_file:
        merge_config_file(cfg, str(config_file))
    if data:
        use_folder(cfg, data, data_task)
    elif data_task:
        raise ValueError(f"--data-task {data_task} needs --data")
    merge_options(cfg, opts)
    register_folder_of(cfg)
    _choose_device(cfg, asked_for="MODEL.DEVICE" in opts[::2])
    return cfg


def _choose_device(cfg: CfgNode, asked_for: bool) -> None:
    if not cfg.MODEL.DEVICE.startswith("cuda") or torch.cuda.is_available():
        return
    if asked_for:
        raise ValueError(f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but PyTorch finds no GPU")
    logger.info("PyTorch finds no GPU: MODEL.DEVICE is 'cpu'")
    cfg.MODEL.DEVICE = "cpu"


def refuse_to_overwrite(output_dir: str) -> None:
    """FileExistsError when ``output_dir`` holds a training or an evaluation."""
    marks = ("last_checkpoint", "metrics.json", "config.yaml")
    if any((Path(output_dir) / name).exists() for name in marks):
        raise FileExistsError(
            f"OUTPUT_DIR {output_dir} holds a run already: continue a training with --resume, or "
            "choose another OUTPUT_DIR"
        )


def evaluation_dir(output_dir: str) -> str:
    """Where an evaluation writes: ``output_dir``, or a new folder in it if that holds a run."""
    if not (Path(output_dir) / "config.yaml").exists():
        return output_dir
    return str(free_name(Path(output_dir) / "evaluation"))


def warn_of_nothing_to_resume(output_dir: str) -> None:
    """Say that ``--resume`` starts from the beginning where ``output_dir`` has no checkpoint."""
    if not (Path(output_dir) / "last_checkpoint").exists():
        logger.warning(f"OUTPUT_DIR {output_dir} holds no checkpoint to resume: a new training")


def set_up_logging(output_dir: str) -> None:
    """Log this package and Detectron2 to the console and to ``log.txt`` in ``output_dir``."""
    for name in ("detectron2", "fvcore", PACKAGE):
        if not logging.getLogger(name).handlers:
            # Propagation lets programs that configure logging themselves see the messages.
            setup_logger(output_dir, comm.get_rank(), name=name, enable_propagation=True)
