import pytest
import torch
from detectron2.modeling import build_model

from mask_transformers.checkpoint import (
    CheckpointMismatchError,
    from_transformers,
    load_transformers_state_dict,
    read_state_dict,
    to_transformers,
)

MASK2FORMER = "mask2former_R50_coco_panoptic"
MASKFORMER = "maskformer_R50_ade20k_semantic"
SYSTEMS = pytest.mark.parametrize("name", [MASK2FORMER, MASKFORMER])
NAMES = pytest.mark.parametrize("published", [True, False])
ENCODER = "model.pixel_level_module.encoder."


@pytest.fixture
def filled(tiny_model):
    """Function from a zoo name to a miniature whose tensors are all different and random."""

    def make(name):
        model = tiny_model(name).eval()
        with torch.no_grad():
            for key, value in model.state_dict().items():
                scale = value[0].numel() ** -0.5 if value.dim() > 1 else 0.2
                value.normal_(0, scale)
                if key.endswith(("norm.weight", "running_var")):
                    value.add_(1).clamp_(0.3)
        return model

    return make


def _same(ours, theirs):
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


@SYSTEMS
@NAMES
def test_there_and_back(filled, name, published):
    model = filled(name)
    state = to_transformers(model, published_names=published)
    system = type(model).__name__
    assert _same(from_transformers(state, system), model.state_dict())
    arrays = {key: value.numpy() for key, value in state.items()}
    assert _same(from_transformers(arrays, system), model.state_dict())
    other = filled(name)
    report = load_transformers_state_dict(other, state)
    assert len(report.loaded) == len(model.state_dict())
    assert _same(other.state_dict(), model.state_dict())


FACTS = {
    MASK2FORMER: {
        "backbone.stem.conv1.norm.running_var": ENCODER
        + "embedder.embedder.normalization.running_var",
        "backbone.res3.0.shortcut.weight": ENCODER
        + "encoder.stages.1.layers.0.shortcut.convolution.weight",
        "backbone.res5.2.conv2.norm.bias": ENCODER
        + "encoder.stages.3.layers.2.layer.1.normalization.bias",
        "pixel_decoder.level_embed": "model.pixel_level_module.decoder.level_embed",
        "pixel_decoder.output.norm.weight": "model.pixel_level_module.decoder.layer_1.1.weight",
        "transformer_decoder.layers.1.cross_attn.in_proj_bias": "model.transformer_module.decoder."
        "layers.1.cross_attn.in_proj_bias",
        "transformer_decoder.class_embed.bias": "class_predictor.bias",
        "criterion.class_balance": "criterion.empty_weight",
    },
    MASKFORMER: {
        "pixel_decoder.pyramid.output.3.weight": "model.pixel_level_module.decoder."
        "fpn.stem.0.weight",
        "pixel_decoder.pyramid.lateral.0.norm.bias": "model.pixel_level_module.decoder."
        "fpn.layers.2.proj.1.bias",
        "transformer_decoder.decoder.layers.0.norm2.weight": "model.transformer_module.decoder."
        "layers.0.encoder_attn_layer_norm.weight",
        "transformer_decoder.decoder.input_proj.bias": "model.transformer_module."
        "input_projection.bias",
        "transformer_decoder.mask_embed.layers.2.weight": "mask_embedder.2.0.weight",
    },
}


@pytest.mark.parametrize(("name", "facts"), FACTS.items())
def test_published_names(filled, name, facts):
    model = filled(name)
    state = to_transformers(model, published_names=True)
    tensors = model.state_dict() | dict(model.named_buffers())
    for ours, theirs in facts.items():
        assert torch.equal(tensors[ours], state[theirs]), ours


@NAMES
def test_packed_projections_are_taken_apart(filled, published):
    model = filled(MASKFORMER)
    state = to_transformers(model, published_names=published)
    packed = model.transformer_decoder.decoder.layers[2].cross_attn
    place = "model.transformer_module.decoder.layers.2.encoder_attn."
    for index, letter in enumerate("qkv"):
        rows = slice(64 * index, 64 * index + 64)
        assert torch.equal(state[f"{place}{letter}_proj.weight"], packed.in_proj_weight[rows])
        assert torch.equal(state[f"{place}{letter}_proj.bias"], packed.in_proj_bias[rows])
    out = "out_proj" if published else "o_proj"
    assert torch.equal(state[f"{place}{out}.weight"], packed.out_proj.weight)


def test_tensors_do_not_share_memory(filled):
    model = filled(MASK2FORMER)
    state = to_transformers(model)
    before = model.transformer_decoder.class_embed.bias.clone()
    for value in state.values():
        value.zero_()
    assert torch.equal(model.transformer_decoder.class_embed.bias, before)
    storages = [value.untyped_storage().data_ptr() for value in state.values()]
    assert len(set(storages)) == len(storages)


BLOCK = "encoder.layers.2.blocks.5."
SWIN = {
    ("MaskFormer", "model."): {
        "attention.self.{}.bias": ("query", "key", "value"),
        "attention.output.dense.weight": "attn.proj.weight",
        "output.dense.weight": "mlp.fc2.weight",
    },
    ("Mask2Former", ""): {
        "attention.self.{}.bias": ("query", "key", "value"),
        "attention.self.relative_position_bias_table": "attn.relative_position_bias_table",
        "intermediate.dense.weight": "mlp.fc1.weight",
        "layernorm_after.weight": "norm2.weight",
    },
    ("Mask2Former", "swin."): {
        "attention.{}_proj.bias": ("q", "k", "v"),
        "attention.o_proj.weight": "attn.proj.weight",
        "attention.relative_position_bias.relative_position_bias_table": (
            "attn.relative_position_bias_table"
        ),
        "mlp.fc2.bias": "mlp.fc2.bias",
    },
}


@pytest.mark.parametrize(("place", "names"), SWIN.items())
def test_names_of_swin_transformers(place, names):
    system, below = place
    state, wanted = {}, {}
    for theirs, ours in names.items():
        if isinstance(ours, str):
            state[ENCODER + below + BLOCK + theirs] = wanted[ours] = torch.randn(4, 3)
        else:
            parts = torch.randn(3, 2)
            for part, row in zip(ours, parts, strict=True):
                state[ENCODER + below + BLOCK + theirs.format(part)] = row
            wanted["attn.qkv.bias"] = parts.flatten()
    wanted = {"backbone.layers.2.blocks.5." + key: value for key, value in wanted.items()}
    norm = "3" if system == "MaskFormer" else "stage4"
    for theirs, ours in {
        f"hidden_states_norms.{norm}.weight": "norm3.weight",
        below + "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        below + "encoder.layers.1.downsample.norm.bias": "layers.1.downsample.norm.bias",
    }.items():
        state[ENCODER + theirs] = wanted["backbone." + ours] = torch.randn(3)
    derived = ["layernorm.weight", BLOCK + "attention.self.relative_position_index"]
    state |= {ENCODER + below + key: torch.zeros(2, 2) for key in derived}
    assert _same(from_transformers(state, system), wanted)


def test_names_that_have_no_counterpart(filled):
    state = to_transformers(filled(MASKFORMER))
    with pytest.raises(ValueError, match=r"MaskFormer has no counterpart of ema\.decay$"):
        from_transformers({**state, "ema.decay": torch.zeros(1)}, "MaskFormer")
    with pytest.raises(ValueError, match=r"Mask2Former has no counterpart of .*, .* and \d+ more"):
        from_transformers(state, "Mask2Former")


@NAMES
def test_a_missing_part_is_named(filled, published):
    state = to_transformers(filled(MASK2FORMER), published_names=published)
    part = "model.transformer_module.decoder.layers.0.self_attn.k_proj.weight"
    del state[part]
    with pytest.raises(ValueError, match=f"^the state dict lacks {part}$"):
        from_transformers(state, "Mask2Former")


def test_a_missing_tensor_leaves_the_model_unchanged(filled):
    source, target = filled(MASK2FORMER), filled(MASK2FORMER)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state = to_transformers(source)
    del state["class_predictor.bias"]
    with pytest.raises(CheckpointMismatchError, match=r"transformer_decoder\.class_embed\.bias"):
        load_transformers_state_dict(target, state)
    assert _same(target.state_dict(), before)


def test_one_tensor_under_two_names(filled):
    state = to_transformers(filled(MASKFORMER)) | to_transformers(
        filled(MASKFORMER), published_names=True
    )
    with pytest.raises(ValueError, match=r"holds .*_attn\.out_proj\.\w+ twice"):
        from_transformers(state, "MaskFormer")


def test_a_value_that_is_no_tensor_is_named():
    with pytest.raises(ValueError, match=r"class_predictor\.bias is no tensor"):
        from_transformers({"class_predictor.bias": "zero"}, "MaskFormer")


def test_models_that_transformers_lacks(tiny_model):
    with pytest.raises(ValueError, match=r"no counterpart of pixel_decoder\.input_proj\.weight"):
        to_transformers(tiny_model("maskformer_R50_coco_panoptic"))
    with pytest.raises(ValueError, match="'PerPixelBaseline' is not in transformers"):
        from_transformers({}, "PerPixelBaseline")


@torch.no_grad()
def _assert_equal_outputs(ours, theirs):
    images = torch.randn(2, 3, 96, 64)
    mine, other = ours.raw_outputs(images), theirs(pixel_values=images)
    assert (mine["pred_logits"] - other.class_queries_logits).abs().max() < 1e-4
    assert (mine["pred_masks"] - other.masks_queries_logits).abs().max() < 1e-4
    assert mine["pred_masks"].std() > 0.01


@SYSTEMS
def test_outputs_in_transformers_are_the_same(filled, tiny_config, their_model, name):
    ours, theirs = filled(name), their_model(tiny_config(name))
    theirs.load_state_dict(to_transformers(ours))  # strict
    _assert_equal_outputs(ours, theirs)


@SYSTEMS
def test_outputs_of_a_model_of_transformers_are_the_same_here(tiny_config, their_model, name):
    theirs, ours = their_model(tiny_config(name)), build_model(tiny_config(name)).eval()
    load_transformers_state_dict(ours, theirs.state_dict())
    _assert_equal_outputs(ours, theirs)
    assert _same(theirs.state_dict(), to_transformers(ours))


@SYSTEMS
def test_files_of_transformers(filled, tiny_config, their_model, name, tmp_path):
    ours, theirs = filled(name), their_model(tiny_config(name))
    state = to_transformers(ours, published_names=True)
    loaded, report = type(theirs).from_pretrained(
        None, config=theirs.config, state_dict=state, output_loading_info=True
    )
    assert not any(report.values()), report
    assert _same(loaded.state_dict(), to_transformers(ours))
    loaded.save_pretrained(tmp_path)
    written = read_state_dict(tmp_path / "model.safetensors")
    assert written.keys() == state.keys()
    assert _same(from_transformers(written, type(ours).__name__), ours.state_dict())
