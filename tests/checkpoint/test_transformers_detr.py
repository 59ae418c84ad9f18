"""DETR in the layout of `transformers`, with its outputs."""

import pytest
import torch

from mask_transformers.checkpoint import (
    from_transformers,
    load_transformers_state_dict,
    read_state_dict,
    to_transformers,
)

BOXES, MASKS = "detr_R50_coco", "detr_R50_coco_panoptic"
DC5 = "detr_R50_dc5_coco_panoptic"
BOTH = pytest.mark.parametrize("name", [BOXES, MASKS])
PUBLISHED = pytest.mark.parametrize("published", [True, False])
TIMM = pytest.mark.parametrize("timm", [True, False])
# Models of timm have one width.
REAL_RESNET = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
}


@pytest.fixture
def filled(tiny_model):
    """Function (zoo name, keys) → a miniature whose tensors are all different and random."""

    def make(name, keys=None):
        model = tiny_model(name, keys).eval()
        with torch.no_grad():
            for key, value in model.state_dict().items():
                value.normal_(0, value[0].numel() ** -0.5 if value.dim() > 1 else 0.2)
                if "norm" in key and key.endswith((".weight", "running_var")):
                    value.add_(1).clamp_(0.3)
        return model

    return make


def _same(ours, theirs):
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


@BOTH
@PUBLISHED
@TIMM
def test_there_and_back(filled, name, published, timm):
    model = filled(name)
    state = to_transformers(model, published_names=published, timm_backbone=timm)
    assert _same(from_transformers(state, "DETR"), model.state_dict())
    other = filled(name)
    report = load_transformers_state_dict(other, state)
    assert (len(report.loaded), report.unexpected) == (len(model.state_dict()), [])
    assert _same(other.state_dict(), model.state_dict())


BODY = "model.backbone.conv_encoder.model."
FACTS = {
    BODY + "embedder.embedder.convolution.weight": "backbone.stem.conv1.weight",
    BODY
    + "encoder.stages.3.layers.2.layer.1.normalization.bias": "backbone.res5.2.conv2.norm.bias",
    "model.input_projection.weight": "input_proj.weight",
    "model.encoder.layers.0.fc1.bias": "encoder.0.linear1.bias",
    "model.encoder.layers.0.final_layer_norm.weight": "encoder.0.norm2.weight",
    "model.decoder.layers.2.self_attn_layer_norm.weight": "decoder.layers.2.norm1.weight",
    "model.decoder.layers.2.encoder_attn.out_proj.bias": (
        "decoder.layers.2.cross_attn.out_proj.bias"
    ),
    "model.decoder.layernorm.bias": "decoder.norm.bias",
    "model.query_position_embeddings.weight": "decoder.query_embed.weight",
    "class_labels_classifier.bias": "class_embed.bias",
    "bbox_predictor.layers.1.weight": "box_embed.layers.1.weight",
}
TIMM_FACTS = {
    BODY + "conv1.weight": "backbone.stem.conv1.weight",
    BODY + "bn1.running_mean": "backbone.stem.conv1.norm.running_mean",
    BODY + "layer3.5.bn2.weight": "backbone.res4.5.conv2.norm.weight",
    BODY + "layer1.0.downsample.1.bias": "backbone.res2.0.shortcut.norm.bias",
}
MASK_FACTS = {
    "bbox_attention.q_linear.weight": "mask_head.attention.q_linear.weight",
    "mask_head.lay3.bias": "mask_head.convs.2.bias",
    "mask_head.gn5.weight": "mask_head.norms.4.weight",
    "mask_head.adapter1.weight": "mask_head.adapters.0.weight",
    "mask_head.out_lay.bias": "mask_head.out.bias",
}


@BOTH
@TIMM
def test_published_names(filled, name, timm):
    model = filled(name)
    ours = model.state_dict()
    theirs = to_transformers(model, published_names=True, timm_backbone=timm)
    facts = {k: v for k, v in FACTS.items() if not (timm and k.startswith(BODY))}
    facts |= TIMM_FACTS if timm else {}
    if name == MASKS:
        facts = {"detr." + key: value for key, value in facts.items()} | MASK_FACTS
    assert [key for key in facts if not torch.equal(theirs[key], ours[facts[key]])] == []


def test_dilation_needs_the_resnet_of_timm(filled):
    with pytest.raises(ValueError, match=r"no counterpart of MODEL\.RESNETS\.RES5_DILATION 2"):
        to_transformers(filled(DC5))
    assert to_transformers(filled(DC5), timm_backbone=True)


def test_other_systems_have_no_resnet_of_timm(tiny_model):
    with pytest.raises(ValueError, match="timm_backbone is for DETR alone, not for Mask2Former"):
        to_transformers(tiny_model(), timm_backbone=True)


def test_names_that_have_no_counterpart(filled, tiny_model):
    state = to_transformers(filled(MASKS))
    with pytest.raises(ValueError, match=r"^DETR has no counterpart of ema\.decay$"):
        from_transformers({**state, "ema.decay": torch.zeros(1)}, "DETR")
    with pytest.raises(ValueError, match=r"DETR of transformers has no counterpart of backbone"):
        to_transformers(tiny_model("detr_small_custom_box"))


def test_a_missing_part_is_named(filled):
    state = to_transformers(filled(BOXES))
    part = "model.decoder.layers.0.encoder_attn.k_proj.weight"
    del state[part]
    with pytest.raises(ValueError, match=f"^the state dict lacks {part}$"):
        from_transformers(state, "DETR")


def test_counts_in_files_of_timm_are_left_out(filled):
    state = to_transformers(filled(BOXES), published_names=True, timm_backbone=True)
    counted = {**state, BODY + "layer1.0.downsample.1.num_batches_tracked": torch.tensor(5)}
    assert _same(from_transformers(counted, "DETR"), from_transformers(state, "DETR"))


@torch.no_grad()
def _assert_equal_outputs(ours, theirs, size=(96, 64)):
    images = torch.randn(2, 3, *size)
    mine, other = ours.raw_outputs(images), theirs(pixel_values=images)
    assert (mine["pred_logits"] - other.logits).abs().max() < 1e-4
    assert (mine["pred_boxes"] - other.pred_boxes).abs().max() < 1e-4
    assert mine["pred_boxes"].std() > 0.01
    if "pred_masks" in mine:
        assert (mine["pred_masks"] - other.pred_masks).abs().max() < 1e-4
        assert mine["pred_masks"].std() > 0.01


@BOTH
def test_outputs_in_transformers_are_the_same(filled, tiny_config, their_model, name):
    ours, theirs = filled(name), their_model(tiny_config(name))
    theirs.load_state_dict(to_transformers(ours))  # strict
    assert _same(theirs.state_dict(), to_transformers(ours))
    _assert_equal_outputs(ours, theirs)


@pytest.mark.parametrize("name", [BOXES, DC5])
def test_outputs_with_the_resnet_of_timm_are_the_same(tiny_config, filled, their_model, name):
    ours = filled(name, REAL_RESNET)
    theirs = their_model(tiny_config(name, REAL_RESNET), timm=True)
    theirs.load_state_dict(to_transformers(ours, timm_backbone=True))  # strict
    _assert_equal_outputs(ours, theirs, (65, 50))
    assert _same(from_transformers(theirs.state_dict(), "DETR"), ours.state_dict())


@BOTH
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
    assert _same(from_transformers(written, "DETR"), ours.state_dict())
