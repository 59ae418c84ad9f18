import pytest
import torch

from mask_transformers.checkpoint import CheckpointMismatchError, load_official_state_dict

SWIN = {"MODEL.BACKBONE.NAME": "build_swin_backbone"}
BUFFERS = {
    "backbone.layers.0.blocks.0.attn.relative_position_index": torch.zeros(9, 9, dtype=torch.long),
    "backbone.layers.0.blocks.1.attn_mask": torch.zeros(4, 9, 9),
}


@pytest.fixture
def models(tiny_model):
    return tiny_model(keys=SWIN), tiny_model(keys=SWIN)


def test_official_names_load_completely_with_or_without_buffers(models, official_state):
    source, target = models
    state = official_state(source)
    report = load_official_state_dict(target, {**state, **BUFFERS})
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], [])
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])
    load_official_state_dict(target, state)


def test_names_of_the_backbone_are_the_official_ones(models):
    names = set(models[0].state_dict())
    for block in ("layers.0.blocks.0.", "layers.3.blocks.1."):
        for name in ("norm1.bias", "attn.relative_position_bias_table", "attn.proj.weight"):
            assert f"backbone.{block}{name}" in names
        for name in ("attn.qkv.bias", "norm2.weight", "mlp.fc1.weight", "mlp.fc2.bias"):
            assert f"backbone.{block}{name}" in names
    rest = {name for name in names if name.startswith("backbone.") and ".blocks." not in name}
    wanted = [f"backbone.norm{i}" for i in range(4)]
    wanted += ["backbone.patch_embed.norm", "backbone.patch_embed.proj"]
    wanted += [f"backbone.layers.{i}.downsample.norm" for i in range(3)]
    tensors = {f"{name}.{part}" for name in wanted for part in ("weight", "bias")}
    tensors |= {f"backbone.layers.{i}.downsample.reduction.weight" for i in range(3)}
    assert rest == tensors
    assert sum(".blocks." in name and name.startswith("backbone.") for name in names) == 8 * 13


def test_a_missing_output_norm_is_reported(models, official_state):
    source, target = models
    state = official_state(source)
    del state["backbone.norm2.weight"]
    with pytest.raises(CheckpointMismatchError, match=r"missing.*backbone\.norm2\.weight"):
        load_official_state_dict(target, state)
