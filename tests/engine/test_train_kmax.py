"""The published recipe of kMaX-DeepLab in a training of two iterations, with small parts."""

import numpy as np
import pytest
import torch
from sample_folder import write_panoptic_folder

from mask_transformers.data.copy_paste import PARTNER
from mask_transformers.engine import Trainer, build_config

SMALL = {
    "INPUT.LSJ.IMAGE_SIZE": 33,
    "MODEL.MASK_TRANSFORMER.PIXEL_DECODER.DROP_PATH_RATE": 0.2,
    "MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.DROP_PATH_RATE": 0.2,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.MAX_ITER": 2,
    "DATALOADER.NUM_WORKERS": 0,
    "INPUT.MIN_SIZE_TEST": 33,
    "SEED": 1,
}


@pytest.fixture
def config(tiny_config, tmp_path):
    """Function (zoo name, options) → its config, small, on a folder of stripes and squares."""

    folder = write_panoptic_folder(tmp_path / tmp_path.name, train=4, val=1)

    def build(name, options=()):
        small = tiny_config(name)
        keys = [key for item in SMALL.items() for key in item]
        path = tmp_path / "small.yaml"
        path.write_text(small.dump())
        keys += ["OUTPUT_DIR", str(tmp_path / "run"), *options]
        return build_config(str(path), keys, data=str(folder))

    return build


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kmax_R50_coco_panoptic", []),
        ("kmax_convnext_large_cityscapes_panoptic", ["INPUT.LSJ.IMAGE_SHAPE", [33, 65]]),
        ("kmax_R50_ade20k_panoptic", ["DATALOADER.NUM_WORKERS", 1]),
    ],
)
def test_two_iterations(config, name, options):
    cfg = config(name, options)
    np.random.seed(0)
    assert cfg.INPUT.COPY_PASTE == 1
    trainer = Trainer(cfg)
    loader = iter(trainer.build_train_loader(cfg))
    [first, second] = next(loader)
    shape = tuple(cfg.INPUT.LSJ.IMAGE_SHAPE) or (33, 33)
    assert first["image"].shape == second["image"].shape == (3, *shape)
    assert PARTNER not in first
    results = trainer.train()
    assert "PQ" in results["panoptic_seg"]
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_more_segments_than_one_image_has(config):
    loader = iter(Trainer.build_train_loader(config("kmax_R50_coco_panoptic")))
    np.random.seed(0)
    counts = [len(r["instances"]) for _ in range(8) for r in next(loader)]
    assert max(counts) > 4  # two squares on two kinds of stripes
