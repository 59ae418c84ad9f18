"""The k-means update as a sum over segments, beside the product with one-hot assignments.

    python tools/benchmark_kmeans.py update [--stride 8]     # one update, forward and backward
    python tools/benchmark_kmeans.py inference               # the whole model
    python tools/benchmark_kmeans.py training-step

A one-hot assignment (N, pixels, queries) times the values of the pixels is the straightforward way
to write the update of ``transformer_decoders/kmeans.py``, and gives the same. On the CPU, with
random weights and images. Runs alternate in one process; peak memory is measured in one process
each.
"""

import argparse
import json
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measuring import (
    add_measuring_arguments,
    alternating_seconds,
    generator,
    image_size,
    medians,
    random_images,
    random_model,
    random_records,
    relative_difference,
    rounded,
)
from peak_memory import peak_above_resident, peaks_of_processes

from mask_transformers.meta_arch.kmax_deeplab import KMaXDeepLab
from mask_transformers.transformer_decoders.kmeans import CrossAttention, kmeans_update

MODEL = "kmax_R50_coco_panoptic"
SIZE = (1281, 1281)
QUERIES, DIM = 128, 256  # of one update, as in the published models


def one_hot_update(similarity: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``kmeans_update`` as a product of matrices."""
    assignment = similarity.detach().argmax(1).flatten(1)  # (N, L)
    one_hot = F.one_hot(assignment, similarity.shape[1]).to(values.dtype)  # (N, L, Q)
    return torch.einsum("nlq,ndl->ndq", one_hot, values.flatten(2))


FORMS: dict[str, CrossAttention] = {"segments": kmeans_update, "one-hot": one_hot_update}


def update_run(form: str, args: argparse.Namespace) -> Callable[[], torch.Tensor]:
    """One update and the gradient of the values, which it returns."""
    grid = tuple((side - 1) // args.stride + 1 for side in args.size)
    similarity = torch.randn(1, QUERIES, *grid, generator=generator())
    values = torch.randn(1, DIM, *grid, generator=generator()).requires_grad_()

    def run() -> torch.Tensor:
        updated = FORMS[form](similarity, values)
        return torch.autograd.grad(updated.square().sum(), values)[0]

    return run


def inference_run(form: str, args: argparse.Namespace) -> Callable[[], torch.Tensor]:
    """The raw outputs of one image; returns the mask logits."""
    model, images = _model(form, args).eval(), random_images(1, args.size)
    return torch.no_grad()(lambda: model.raw_outputs(images)["pred_masks"])


def training_run(form: str, args: argparse.Namespace) -> Callable[[], torch.Tensor]:
    """One image forward, losses and gradients; returns the loss."""
    model, records = _model(form, args).train(), random_records(1, args.size, args.masks)
    model.semantic_head.aspp.pool.eval()  # its norm sees one value of each image

    def step() -> torch.Tensor:
        model.zero_grad()
        torch.manual_seed(0)  # which pixels are drawn
        loss = sum(model(records).values(), torch.zeros(()))
        loss.backward()
        return loss.detach()

    return step


def _model(form: str, args: argparse.Namespace) -> KMaXDeepLab:
    model = random_model(MODEL)
    assert isinstance(model, KMaXDeepLab)
    model.padded_size = ()  # of --size, not that of the published configs
    for layer in model.transformer_decoder.layers:
        layer.cross_attention = FORMS[form]
    return model


RUNS = {"update": update_run, "inference": inference_run, "training-step": training_run}


def compare_speed(args: argparse.Namespace) -> dict:
    """Median seconds of both forms, runs alternating, and the largest relative difference."""
    runs = {form: RUNS[args.task](form, args) for form in FORMS}
    first = {form: run() for form, run in runs.items()}
    seconds = alternating_seconds(runs, args.repeats)
    median = medians(seconds)
    return {
        "seconds": rounded(seconds),
        "median": {form: round(value, 4) for form, value in median.items()},
        "times_faster": round(median["one-hot"] / median["segments"], 2),
        "difference": relative_difference(first["segments"], first["one-hot"]),
    }


def compare_memory() -> dict:
    """MiB above the loaded model at the peak, one process each."""
    peak = peaks_of_processes(__file__, FORMS)
    return {"peak_mib": peak, "share_of_memory": round(peak["segments"] / peak["one-hot"], 3)}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=RUNS)
    add_measuring_arguments(parser)
    parser.add_argument("--stride", type=int, default=8, help="of the pixels of one update")
    parser.add_argument("--masks", type=int, default=10, help="masks in a training image")
    parser.add_argument("--memory-of", choices=FORMS, help="only measure the memory of this form")
    args = parser.parse_args()
    args.size = image_size(parser, args.size, SIZE)
    return args


def main() -> None:
    """Print speed and memory of both forms as JSON."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(peak_above_resident(RUNS[args.task](args.memory_of, args), times=1))
        return
    print(json.dumps(compare_speed(args) | compare_memory(), indent=1))


if __name__ == "__main__":
    main()
