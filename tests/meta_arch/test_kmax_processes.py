"""Training in two processes, one of which has an image without objects."""

import faulthandler
from pathlib import Path

import torch
from detectron2.modeling import build_model
from detectron2.utils import comm

from mask_transformers.engine import launch
from mask_transformers.engine.trainer import _distribute
from mask_transformers.layers.conv_norm import SyncNorm

NODE = "MODEL.MASK_TRANSFORMER."
# Nothing is drawn by chance; few blocks will do.
KEYS = {NODE + "LOSS.POINTS": 10_000, NODE + "PIXEL_DECODER.BLOCKS": [1, 1, 1, 1]}
LIMIT = 180  # seconds for processes that wait for each other in vain


def write_step(cfg, records, folder):
    """One process: a file with losses, gradients and statistics of equal steps."""
    world, rank = comm.get_world_size(), comm.get_rank()
    torch.set_num_threads(1)
    if world > 1:
        faulthandler.dump_traceback_later(LIMIT, exit=True)
    torch.manual_seed(0)
    # Digits that decide which cluster a pixel belongs to must not depend on the order of sums.
    network = _trained(build_model(cfg)).double().train()
    model = _distribute(network, torch.device("cpu"))
    for _ in range(world):  # a second step fails where the first left a parameter out
        model.zero_grad()
        losses = model(records[rank::world])
        sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    values = {name: value.detach() for name, value in losses.items()}
    result = {"losses": values, "gradients": gradients, "buffers": dict(network.named_buffers())}
    torch.save(result, Path(folder, f"{rank}_of_{world}.pth"))


def _trained(model):
    """With branches that count, where they start from nothing."""
    for module in model.modules():
        if isinstance(module, SyncNorm) and len(module.weight) > 1:
            torch.nn.init.uniform_(module.weight, 0.5, 1)
    return model


def test_two_processes_have_the_gradients_and_statistics_of_one(tiny_config, make_record, tmp_path):
    cfg = tiny_config("kmax_R50_coco_panoptic", KEYS)
    arguments = (cfg, [make_record(3), make_record(0)], str(tmp_path))
    for processes in (1, 2):
        launch(write_step, processes, args=arguments, device="cpu")
    names = ("0_of_2", "1_of_2", "0_of_1")
    first, second, alone = (torch.load(tmp_path / f"{name}.pth") for name in names)
    for name, value in alone["losses"].items():
        mean = (first["losses"][name] + second["losses"][name]) / 2
        torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-6, msg=name)
    for name, gradient in alone["gradients"].items():
        found = first["gradients"][name]
        assert torch.equal(found, second["gradients"][name]), name
        assert (found - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name
    for name in alone["buffers"]:
        assert torch.equal(first["buffers"][name], second["buffers"][name]), name
