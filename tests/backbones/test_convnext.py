import re

import pytest
import timm
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

from mask_transformers.backbones import ConvNeXtBackbone, timm_weights
from mask_transformers.backbones.convnext import VARIANTS
from mask_transformers.backbones.initial_weights import (
    without_downloads,
    without_initial_weights,
)
from mask_transformers.config import add_mask_transformer_config


def _timm_model():
    """A timm classifier with the tensors of the miniature, all of which matter."""
    width, depths = VARIANTS["miniature"]
    dims = [width * 2**i for i in range(4)]
    model = timm.models.convnext.ConvNeXt(depths=depths, dims=dims, num_classes=5)
    return _disturb(model)


def _disturb(module):
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module.eval()


def _authors_names(state):
    rules = [
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"\.blocks\.", "."),
        ("conv_dw", "dwconv"),
        (r"mlp\.fc", "pwconv"),
        (r"^head\.norm", "norm"),
        (r"^head\.fc", "head"),
    ]
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _build(weights="", **options):
    options = {"variant": "miniature", "drop_path_rate": 0.0, **options}
    return ConvNeXtBackbone(weights=str(weights), **options)


def _config(**keys):
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    for key, value in {"VARIANT": "miniature", **keys}.items():
        cfg.MODEL.CONVNEXT[key] = value
    return cfg


@pytest.mark.parametrize("form", ["timm", "authors", "nested", "own"])
def test_files_in_all_namings_give_the_features_of_timm(form, tmp_path):
    whole = _timm_model()
    state = whole.state_dict()
    if form in ("authors", "nested"):
        state = _authors_names(state)
    if form == "own":
        torch.save(state, tmp_path / "timm.pth")
        state = _build(tmp_path / "timm.pth").state_dict()
    torch.save({"model": state} if form == "nested" else state, tmp_path / "w.pth")
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = _build(tmp_path / "w.pth").eval()(images)
        expected = whole.forward_intermediates(images, intermediates_only=True)
    for feature, wanted in zip(features.values(), expected, strict=True):
        torch.testing.assert_close(feature, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [1, 31, 32, 33, 34, 64, 65, 66, 100])
def test_shapes_at_any_size(side):
    model = _build()
    shapes = model.output_shape()
    with torch.no_grad():
        features = model(torch.randn(1, 3, side, 40))
    assert list(features) == list(shapes) == ["res2", "res3", "res4", "res5"]
    assert [shape.stride for shape in shapes.values()] == [4, 8, 16, 32]
    rows = {1: 1, 31: 1, 32: 1, 33: 1, 34: 2, 64: 2, 65: 2, 66: 3, 100: 4}[side]
    for name, feature in features.items():
        scale = 32 // shapes[name].stride
        assert feature.shape == (1, shapes[name].channels, rows * scale, 2 * scale)


def test_no_convolution_that_downsamples_has_padding():
    """What is at 1281 pixels in the published models: the last one is not seen."""
    model = _disturb(_build())
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        features, cropped = model(images), model(images[..., :64, :96])
    for name, feature in features.items():
        assert torch.equal(feature, cropped[name])


def test_other_sizes_are_padded_at_the_bottom_and_right():
    model = _disturb(_build())
    images = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        features, padded = model(images), model(torch.nn.functional.pad(images, (0, 26, 0, 14)))
    for name, feature in features.items():
        assert torch.equal(feature, padded[name])


@pytest.mark.parametrize(
    ("variant", "count"),
    # Without classifier and its norm.
    [
        ("tiny", 27_818_592),
        ("small", 49_453_152),
        ("base", 87_564_416),
        ("large", 196_227_264),
    ],
)
def test_parameters_of_the_variants(variant, count):
    with torch.device("meta"):
        model = ConvNeXtBackbone(variant=variant)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_epsilon_is_that_of_the_published_models():
    norms = [m for m in _build().modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 4 + sum(VARIANTS["miniature"].depths)
    assert {norm.eps for norm in norms} == {1e-6}


def test_batched_equals_single():
    model = _disturb(_build())
    images = torch.randn(3, 3, 50, 70)
    with torch.no_grad():
        batched, single = model(images), model(images[1:2])
    for name in batched:
        torch.testing.assert_close(batched[name][1:2], single[name], rtol=1e-4, atol=1e-4)


def _gradients(model, images):
    features = model(images)
    sum(feature.square().mean() for feature in features.values()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_every_parameter_learns():
    for name, gradient in _gradients(_disturb(_build()), torch.randn(1, 3, 64, 64)).items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name


def test_recomputed_blocks_give_the_same_gradients_and_keep_less():
    images, gradients, kept = torch.randn(2, 3, 64, 64), [], []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        model = _build(drop_path_rate=0.5, activation_checkpointing=checkpointing)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x
        ):
            gradients.append(_gradients(_disturb(model).train(), images))
        kept.append(sum(sizes))
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
    assert kept[1] < 0.7 * kept[0]


def test_stochastic_depth_increases_over_all_blocks():
    model = _build(drop_path_rate=0.7)
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for blocks in model.stages for b in blocks]
    last = sum(VARIANTS["miniature"].depths) - 1
    assert rates == pytest.approx([0.7 * i / last for i in range(last + 1)])
    _disturb(model).train()
    images = torch.randn(1, 3, 32, 32).expand(16, -1, -1, -1)
    with torch.no_grad():
        assert model(images)["res5"].std(0).min() > 0.01
        assert model.eval()(images)["res5"].std(0).max() < 0.001


def test_built_from_a_config():
    cfg = _config(DROP_PATH_RATE=0.2, ACTIVATION_CHECKPOINTING=True)
    build = BACKBONE_REGISTRY.get("build_convnext_backbone")
    model = build(cfg, ShapeSpec(channels=3))
    assert model.stages[3][-1].drop_path.drop_prob == pytest.approx(0.2)
    assert (model.stages[0][0].gamma == 1e-6).all()
    assert model.recompute
    with pytest.raises(ValueError, match=r"MODEL\.PIXEL_MEAN has 1 channels"):
        build(cfg, ShapeSpec(channels=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "huge"}, r"MODEL\.CONVNEXT\.VARIANT is 'huge'; known: tiny, small, base, "),
        ({"drop_path_rate": 1.0}, r"MODEL\.CONVNEXT\.DROP_PATH_RATE must be in \[0, 1\), not 1"),
    ],
)
def test_impossible_values_name_their_key(options, message):
    with pytest.raises(ValueError, match=message):
        ConvNeXtBackbone(**options)


def test_weights_of_another_variant_name_the_tensors(tmp_path):
    state = _build().state_dict()
    del state["downsample_layers.1.0.bias"]
    state["stages.0.0.gamma"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"stages\.0\.0\.gamma is \(3,\), expected") as error:
        _build(tmp_path / "w.pth")
    assert "ConvNeXt miniature" in str(error.value)
    assert "downsample_layers.1.0.bias is missing" in str(error.value)


def test_a_file_that_is_not_there():
    message = r"MODEL\.CONVNEXT\.WEIGHTS is 'imagenet21k': neither of '', 'imagenet', 'imagenet22k'"
    with pytest.raises(FileNotFoundError, match=message):
        _build("imagenet21k")


@pytest.mark.parametrize(
    ("weights", "name"),
    [("imagenet", "convnext_miniature.fb_in1k"), ("imagenet22k", "convnext_miniature.fb_in22k")],
)
def test_imagenet_weights_come_through_timm(weights, name, monkeypatch):
    whole, asked = _timm_model(), []

    def create(name, pretrained):
        asked.append((name, pretrained))
        return whole

    monkeypatch.setattr(timm_weights.timm, "create_model", create)
    model = _build(weights)
    assert asked == [(name, True)]
    assert torch.equal(model.downsample_layers[0][0].weight, whole.stem[0].weight)


@pytest.mark.parametrize("variant", ["tiny", "small", "base", "large"])
def test_published_weights_exist(variant):
    published = timm.list_pretrained("convnext_*")
    assert {f"convnext_{variant}.fb_in1k", f"convnext_{variant}.fb_in22k"} <= set(published)


def test_weights_that_cannot_be_fetched(monkeypatch):
    def create(name, pretrained):
        raise OSError("no route")

    monkeypatch.setattr(timm_weights.timm, "create_model", create)
    message = r"MODEL\.CONVNEXT\.WEIGHTS asks for ImageNet weights.*fb_in22k.*no route"
    with pytest.raises(RuntimeError, match=message):
        _build("imagenet22k")


def test_configs_without_weights_of_the_backbone():
    cfg = _config(WEIGHTS="imagenet22k")
    assert without_initial_weights(cfg).MODEL.CONVNEXT.WEIGHTS == ""
    assert without_downloads(cfg).MODEL.CONVNEXT.WEIGHTS == ""
    cfg = _config(WEIGHTS="some/file.pth")
    assert without_downloads(cfg).MODEL.CONVNEXT.WEIGHTS == "some/file.pth"
    assert without_initial_weights(cfg).MODEL.CONVNEXT.WEIGHTS == ""
