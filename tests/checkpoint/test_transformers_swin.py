"""Swin Transformers in the layout of `transformers`, with its outputs."""

import pytest
import torch

from mask_transformers.checkpoint import from_transformers, to_transformers

NAMES = pytest.mark.parametrize(
    "name", ["mask2former_R50_coco_panoptic", "maskformer_R50_ade20k_semantic"]
)
SWIN = {"MODEL.BACKBONE.NAME": "build_swin_backbone", "MODEL.SWIN.WINDOW_SIZE": 2}


@pytest.fixture
def ours(tiny_model, name):
    model = tiny_model(name, SWIN).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(torch.randn_like(value), alpha=0.05)
    return model


def _same(ours, theirs):
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


@NAMES
@pytest.mark.parametrize("published", [True, False])
def test_there_and_back(ours, name, published):
    state = to_transformers(ours, published_names=published)
    assert _same(from_transformers(state, type(ours).__name__), ours.state_dict())


@NAMES
def test_outputs_in_transformers_are_the_same(ours, tiny_config, their_model, name):
    theirs = their_model(tiny_config(name, SWIN))
    theirs.load_state_dict(to_transformers(ours))  # strict
    images = torch.randn(1, 3, 125, 190)
    with torch.no_grad():
        mine, other = ours.raw_outputs(images), theirs(pixel_values=images)
    assert (mine["pred_logits"] - other.class_queries_logits).abs().max() < 1e-4
    assert (mine["pred_masks"] - other.masks_queries_logits).abs().max() < 1e-4
    assert mine["pred_masks"].std() > 0.01


@NAMES
def test_files_of_transformers(ours, tiny_config, their_model, name):
    theirs = their_model(tiny_config(name, SWIN))
    state = to_transformers(ours, published_names=True)
    loaded = type(theirs).from_pretrained(None, config=theirs.config, state_dict=state)
    assert _same(from_transformers(loaded.state_dict(), type(ours).__name__), ours.state_dict())
