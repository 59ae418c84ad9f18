"""What one system costs: its parameters and multiply-adds, one inference, one training step."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model
from flops import Network, count_flops
from measured_process import time_and_peak
from measuring import random_images, random_records
from torch import nn

from mask_transformers.engine.optimizer import build_optimizer
from mask_transformers.engine.setup import build_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@dataclass(frozen=True)
class System:
    """What is measured; ``config`` is a path below configs/ without the suffix.

    Sides of the square images and the number of images in a training step are the config's where
    they are 0. ``data`` and ``data_task`` are those of ``tools/train_net.py``.
    """

    config: str
    options: list[str] = field(default_factory=list)
    data: str = ""
    data_task: str = ""
    inference_side: int = 0
    training_side: int = 0
    training_images: int = 0


def config_of(system: System) -> Any:
    """Its config, with random weights on the CPU; errors as in ``build_config``."""
    file = str(CONFIGS / f"{system.config}.yaml")
    options = [*system.options, "MODEL.WEIGHTS", "", "MODEL.TIMM.WEIGHTS", ""]
    options += ["MODEL.DEVICE", "cpu"]
    return build_config(file, options, system.data, system.data_task)


def sizes_of(system: System, cfg: Any) -> tuple[int, int, int]:
    """Sides of the images of inference and of training, and the images of a training step."""
    return (
        system.inference_side or cfg.INPUT.MIN_SIZE_TEST,
        system.training_side or cfg.INPUT.LSJ.IMAGE_SIZE,
        system.training_images or cfg.SOLVER.IMS_PER_BATCH,
    )


def inference_inputs(model: Any, side: int) -> torch.Tensor:
    """One image, padded as the model pads it."""
    return random_images(1, model.padded_image_size((side, side)))


def size_report(system: System, args: argparse.Namespace) -> dict:
    """``parameters``, those that are for training alone, multiply-adds, what is not in these."""
    cfg = config_of(system)
    model = build_model(cfg).eval()
    flops, uncounted = count_flops(
        Network(model), inference_inputs(model, sizes_of(system, cfg)[0])
    )
    every, idle = _count(model), _count(getattr(model, "semantic_head", nn.Module()))
    return {
        "parameters": every - idle,
        "idle_parameters": idle,
        "flops": flops,
        "uncounted": sorted(uncounted),
    }


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def inference_report(system: System, args: argparse.Namespace) -> dict:
    """Seconds and MiB of one image."""
    cfg = config_of(system)
    model = build_model(cfg).eval()
    network, images = Network(model), inference_inputs(model, sizes_of(system, cfg)[0])
    return time_and_peak(lambda: network(images), args.runs)


def training_report(system: System, args: argparse.Namespace) -> dict:
    """Seconds and MiB of a training step."""
    cfg = config_of(system)
    step = training_step(cfg, sizes_of(system, cfg), args.masks)
    return time_and_peak(step, args.runs)


def training_step(cfg: Any, sizes: tuple[int, int, int], masks: int) -> Callable[[], float]:
    """A function that makes one step and returns the loss before it."""
    _, side, count = sizes
    model = build_model(cfg).train()
    ids = getattr(model, "class_ids", None)  # the head may have more classes than the data
    classes = cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES if ids is None else len(ids)
    records = random_records(count, (side, side), masks, classes)
    optimizer = build_optimizer(cfg, model)

    def step() -> float:
        optimizer.zero_grad()
        loss = sum(model(records).values(), torch.zeros(()))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


REPORTS = {"size": size_report, "inference": inference_report, "training": training_report}
