"""Speed and memory beside the library transformers, with equal weights.

    python tools/benchmark.py inference [--system maskformer | --system detr]
    python tools/benchmark.py training-step

Needs the extra ``benchmark``. Runs of the two models alternate in one process; peak memory is
measured in one process each. All on the CPU, with random weights and images.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from measuring import (
    add_measuring_arguments,
    alternating_seconds,
    image_size,
    medians,
    random_images,
    random_model,
    random_records,
    relative_difference,
    rounded,
)
from peak_memory import peak_above_resident, peaks_of_processes
from torch import nn
from transformers_model import build_transformers_model, train_with_frozen_norms


@dataclass(frozen=True)
class System:
    """A model of the zoo, and which outputs are compared: our key and their attribute."""

    model: str
    outputs: dict[str, tuple[str, str]]
    size: tuple[int, int] = (640, 640)


_MASKS = {
    "logits": ("pred_logits", "class_queries_logits"),
    "masks": ("pred_masks", "masks_queries_logits"),
}
_BOXES = {"logits": ("pred_logits", "logits"), "boxes": ("pred_boxes", "pred_boxes")}
SYSTEMS = {
    "mask2former": System("mask2former_R50_coco_panoptic", _MASKS),
    "maskformer": System("maskformer_R50_ade20k_semantic", _MASKS),
    "detr": System("detr_R50_coco", _BOXES, (800, 1066)),
}
MODELS = ("ours", "transformers")


def build(which: str, system: str) -> nn.Module:
    """One model alone in memory; both have the same weights."""
    model = random_model(SYSTEMS[system].model)
    return model if which == "ours" else build_transformers_model(model)


def inference_run(which: str, model: nn.Module, args: argparse.Namespace) -> Callable[[], dict]:
    """A function that returns the outputs of the last layer; masks have a stride of 4."""
    images = random_images(args.images, args.size)
    outputs = SYSTEMS[args.system].outputs

    def run_ours() -> dict:
        out = model.raw_outputs(images)
        return {name: out[key] for name, (key, _) in outputs.items()}

    def run_transformers() -> dict:
        out = model(pixel_values=images)
        return {name: getattr(out, attribute) for name, (_, attribute) in outputs.items()}

    return torch.no_grad()(run_ours if which == "ours" else run_transformers)


def training_run(which: str, model: nn.Module, args: argparse.Namespace) -> Callable[[], dict]:
    """A function that does one step: forward, loss, backward, AdamW. Returns the loss."""
    inputs = random_records(args.images, args.size, args.masks)
    train_with_frozen_norms(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0 if args.still else 1e-4)

    def loss_of_ours() -> torch.Tensor:
        return sum(model(inputs).values(), torch.zeros(()))

    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    images = torch.stack([record["image"] for record in inputs])
    pixels = (images - mean[:, None, None]) / std[:, None, None]
    masks = [record["instances"].gt_masks.tensor.float() for record in inputs]
    classes = [record["instances"].gt_classes for record in inputs]

    def loss_of_transformers() -> torch.Tensor:
        return model(pixel_values=pixels, mask_labels=masks, class_labels=classes).loss

    def step() -> dict:
        optimizer.zero_grad()
        loss = (loss_of_ours if which == "ours" else loss_of_transformers)()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    return step


RUNS = {"inference": inference_run, "training-step": training_run}


def compare_speed(args: argparse.Namespace) -> dict:
    """Median seconds of both, runs alternating, and the largest relative difference."""
    models = {which: build(which, args.system) for which in MODELS}
    runs = {which: RUNS[args.task](which, model, args) for which, model in models.items()}
    first = {which: run() for which, run in runs.items()}
    seconds = alternating_seconds(runs, args.repeats)
    median = medians(seconds)
    return {
        "seconds": rounded(seconds),
        "median": {w: round(value, 3) for w, value in median.items()},
        "times_faster": round(median["transformers"] / median["ours"], 2),
        "difference": {
            name: relative_difference(value, first["transformers"][name])
            for name, value in first["ours"].items()
        },
    }


def compare_memory() -> dict:
    """MiB above the loaded model at the peak, one process each."""
    peak = peaks_of_processes(__file__, MODELS)
    return {"peak_mib": peak, "share_of_memory": round(peak["ours"] / peak["transformers"], 3)}


def parse_arguments() -> argparse.Namespace:
    """The command line, with the sizes of the task and system where none are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=RUNS)
    parser.add_argument("--system", choices=SYSTEMS, default="mask2former")
    add_measuring_arguments(parser)
    parser.add_argument("--images", type=int, help="images in a batch (1; training 2)")
    parser.add_argument("--masks", type=int, default=10, help="masks in an image")
    parser.add_argument("--still", action="store_true", help="a learning rate of 0")
    parser.add_argument("--memory-of", choices=MODELS, help="only measure the memory of this one")
    args = parser.parse_args()
    training = args.task == "training-step"
    if training and args.system != "mask2former":
        parser.error("training-step compares Mask2Former alone")
    default = (512, 512) if training else SYSTEMS[args.system].size
    args.size = image_size(parser, args.size, default)
    args.images = args.images or (2 if training else 1)
    return args


def main() -> None:
    """Print speed and memory of both models as JSON."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        model = build(args.memory_of, args.system)
        print(peak_above_resident(RUNS[args.task](args.memory_of, model, args)))
        return
    print(json.dumps(compare_speed(args) | compare_memory(), indent=1))


if __name__ == "__main__":
    main()
