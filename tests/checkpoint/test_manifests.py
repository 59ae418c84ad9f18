"""Names and shapes of the published checkpoints, one file a model in manifests/.

``{0..5}`` stands for the numbers of a range, ``{0,2}`` and ``{weight,bias}`` for what they list; a
shape follows each name.
"""

import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from mask_transformers import model_zoo
from mask_transformers.backbones.initial_weights import without_initial_weights
from mask_transformers.checkpoint.name_maps import to_native_names

FOLDER = Path(__file__).parent / "manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))


def _expanded(name):
    match = re.search(r"\{([^}]*)\}", name)
    if not match:
        return [name]
    first, dots, last = match[1].partition("..")
    numbers = range(int(first), int(last) + 1) if dots else match[1].split(",")
    parts = [f"{name[: match.start()]}{number}{name[match.end() :]}" for number in numbers]
    return [tensor for part in parts for tensor in _expanded(part)]


def _manifest(name):
    """Official tensor name → shape."""
    shapes = {}
    for line in (FOLDER / f"{name}.txt").read_text().splitlines():
        tensors, shape = line.split("\t")
        sides = tuple(int(side) for side in shape.split(",") if side)
        shapes |= dict.fromkeys(_expanded(tensors), sides)
    return shapes


def _shapes_of_model(name):
    cfg = without_initial_weights(model_zoo.get_config(name))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):  # no memory, no time for random numbers
        model = build_model(cfg)
    return type(model).__name__, {k: tuple(v.shape) for k, v in model.state_dict().items()}


def _older(tensor):
    """The name in files from before the pixel decoder was a part of its own."""
    if tensor.startswith("sem_seg_head.predictor."):
        return tensor.replace("query_feat", "static_query")
    return tensor.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.")


@pytest.mark.parametrize("rename", [str, _older])
@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_covered_and_none_left_over(name, rename):
    official = {rename(tensor): shape for tensor, shape in _manifest(name).items()}
    system, shapes = _shapes_of_model(name)
    native = to_native_names(system, {**official, "criterion.empty_weight": ()})
    assert native == shapes


def test_ranges_are_read():
    assert _expanded("a.{0..2}.b.{1,5}") == [f"a.{i}.b.{j}" for i in (0, 1, 2) for j in (1, 5)]
    assert _expanded("a.{w,b}") == ["a.w", "a.b"]
    assert len(_manifest("mask2former_R50_coco_panoptic")) == 558


@pytest.mark.parametrize("name", NAMES)
def test_manifests_are_those_of_the_official_models(shared, name):
    lines = (shared / f"parity/manifests/{name}.tsv").read_text().splitlines()
    official = {line.split("\t")[0]: line.split("\t")[1] for line in lines}
    found = {tensor: ",".join(map(str, shape)) for tensor, shape in _manifest(name).items()}
    assert found == official
