"""Training in two processes, one of which has an image without objects."""

import faulthandler
from pathlib import Path

import torch
from detectron2.modeling import build_model
from detectron2.utils import comm

from mask_transformers.engine import launch
from mask_transformers.engine.trainer import _distribute

NODE = "MODEL.MASK_TRANSFORMER."
# What makes the gradient of a batch the mean of those of its images: no chance, and a class loss
# whose queries all weigh the same. Norms of this backbone are frozen.
SEPARABLE = {
    NODE + "PIXEL_DECODER.DROPOUT": 0.0,
    NODE + "TRANSFORMER_DECODER.DROPOUT": 0.0,
    NODE + "LOSS.NO_OBJECT_WEIGHT": 1.0,
}
LIMIT = 180  # seconds for processes that wait for each other in vain


def write_gradients(configs, records, folder):
    """One process: a file with the gradients of each config."""
    world, rank = comm.get_world_size(), comm.get_rank()
    if world > 1:
        torch.set_num_threads(1)
        faulthandler.dump_traceback_later(LIMIT, exit=True)
    gradients = {kind: _gradients(cfg, records[rank::world]) for kind, cfg in configs.items()}
    torch.save(gradients, Path(folder, f"{rank}_of_{world}.pth"))


def _gradients(cfg, records):
    """After the second of two equal steps, which fails where the first one left a tensor out."""
    torch.manual_seed(0)
    network = build_model(cfg).train()
    model = _distribute(network, torch.device("cpu"))
    for _ in range(2):
        model.zero_grad()
        sum(model(records).values()).backward()
    return {name: p.grad for name, p in network.named_parameters() if p.requires_grad}


def test_two_processes_have_the_gradients_of_one(tiny_config, make_record, tmp_path):
    configs = {
        kind: tiny_config(
            "detr_R50_coco_panoptic", {**SEPARABLE, NODE + "MASK_HEAD.FREEZE_DETECTOR": frozen}
        )
        for kind, frozen in (("joint", False), ("frozen", True))
    }
    arguments = (configs, [make_record(3), make_record(0)], str(tmp_path))
    for processes in (1, 2):
        launch(write_gradients, processes, args=arguments, device="cpu")
    names = ("0_of_2", "1_of_2", "0_of_1")
    first, second, alone = (torch.load(tmp_path / f"{name}.pth") for name in names)
    for kind, gradients in alone.items():
        assert set(first[kind]) == set(second[kind]) == set(gradients)
        assert all(name.startswith("mask_head.") for name in gradients) == (kind == "frozen")
        for name, gradient in gradients.items():
            assert torch.equal(first[kind][name], second[kind][name]), (kind, name)
            torch.testing.assert_close(
                first[kind][name], gradient, rtol=1e-3, atol=1e-5, msg=f"{kind}: {name}"
            )
