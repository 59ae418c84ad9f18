"""Speed and memory beside the library transformers, with equal weights.

    python tools/benchmark.py inference [--system maskformer]
    python tools/benchmark.py training-step

Needs the extra ``benchmark``. Runs of the two models alternate in one process; peak memory is
measured in one process each. All on the CPU, with random weights and images.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from detectron2.structures import BitMasks, Instances
from peak_memory import peak_above_resident
from torch import nn
from transformers_model import build_transformers_model, train_with_frozen_norms

from mask_transformers import model_zoo

SYSTEMS = {
    "mask2former": "mask2former_R50_coco_panoptic",
    "maskformer": "maskformer_R50_ade20k_semantic",
}
MODELS = ("ours", "transformers")


def build_ours(system: str) -> nn.Module:
    """Our model with random weights that leave no part idle (offsets begin at zero otherwise)."""
    torch.manual_seed(0)
    model = model_zoo.build(SYSTEMS[system])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0, fan_in**-0.5)
    return model


def build(which: str, system: str) -> nn.Module:
    """One model alone in memory; both have the same weights."""
    model = build_ours(system)
    return model if which == "ours" else build_transformers_model(model)


def inference_run(which: str, model: nn.Module, args: argparse.Namespace) -> Callable[[], dict]:
    """A function that returns class logits and mask logits at stride 4 of the last layer."""
    images = torch.randn(args.images, 3, args.size, args.size, generator=_generator())

    def run_ours() -> dict:
        out = model.raw_outputs(images)
        return {"logits": out["pred_logits"], "masks": out["pred_masks"]}

    def run_transformers() -> dict:
        out = model(pixel_values=images)
        return {"logits": out.class_queries_logits, "masks": out.masks_queries_logits}

    return torch.no_grad()(run_ours if which == "ours" else run_transformers)


def training_run(which: str, model: nn.Module, args: argparse.Namespace) -> Callable[[], dict]:
    """A function that does one step: forward, loss, backward, AdamW. Returns the loss."""
    inputs = _training_inputs(args)
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


def _training_inputs(args: argparse.Namespace) -> list[dict]:
    generator, size = _generator(), args.size
    records = []
    for _ in range(args.images):
        instances = Instances((size, size))
        instances.gt_classes = torch.randint(133, (args.masks,), generator=generator)
        corners = torch.randint(size // 2, (args.masks, 2), generator=generator)
        masks = torch.zeros(args.masks, size, size, dtype=torch.bool)
        for mask, (y, x) in zip(masks, corners, strict=True):
            mask[y : y + size // 3, x : x + size // 3] = True
        instances.gt_masks = BitMasks(masks)
        image = torch.randint(256, (3, size, size), generator=generator, dtype=torch.uint8)
        records.append({"image": image, "instances": instances})
    return records


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


RUNS = {"inference": inference_run, "training-step": training_run}


def compare_speed(args: argparse.Namespace) -> dict:
    """Median seconds of both, runs alternating, and the largest relative difference."""
    models = {which: build(which, args.system) for which in MODELS}
    runs = {which: RUNS[args.task](which, model, args) for which, model in models.items()}
    first = {which: run() for which, run in runs.items()}
    seconds: dict[str, list[float]] = {which: [] for which in MODELS}
    for _ in range(args.repeats):
        for which, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[which].append(time.perf_counter() - begin)
    median = {which: statistics.median(values) for which, values in seconds.items()}
    return {
        "seconds": {w: [round(s, 3) for s in values] for w, values in seconds.items()},
        "median": {w: round(value, 3) for w, value in median.items()},
        "times_faster": round(median["transformers"] / median["ours"], 2),
        "difference": {
            name: relative_difference(value, first["transformers"][name])
            for name, value in first["ours"].items()
        },
    }


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compare_memory(args: argparse.Namespace) -> dict:
    """MiB above the loaded model at the peak, one process each."""
    peak = {}
    for which in MODELS:
        command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", which]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peak[which] = float(output.split()[-1])
    return {"peak_mib": peak, "share_of_memory": round(peak["ours"] / peak["transformers"], 3)}


def parse_arguments() -> argparse.Namespace:
    """The command line, with the sizes of the task where none are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=RUNS)
    parser.add_argument("--system", choices=SYSTEMS, default="mask2former")
    parser.add_argument("--size", type=int, help="side of the images (640; training 512)")
    parser.add_argument("--images", type=int, help="images in a batch (1; training 2)")
    parser.add_argument("--masks", type=int, default=10, help="masks in an image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each model")
    parser.add_argument("--still", action="store_true", help="a learning rate of 0")
    parser.add_argument("--memory-of", choices=MODELS, help="only measure the memory of this one")
    args = parser.parse_args()
    training = args.task == "training-step"
    if training and args.system != "mask2former":
        parser.error("training-step compares Mask2Former alone")
    args.size = args.size or (512 if training else 640)
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
    print(json.dumps(compare_speed(args) | compare_memory(args), indent=1))


if __name__ == "__main__":
    main()
