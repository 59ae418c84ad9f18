import re

import pytest
import timm
import torch

from mask_transformers.backbones import SwinBackbone, swin_weights, timm_weights
from mask_transformers.backbones.initial_weights import (
    without_downloads,
    without_initial_weights,
)
from mask_transformers.backbones.swin import VARIANTS


def _timm_model():
    """A timm model with the tensors of the miniature."""
    width, depths, heads = VARIANTS["miniature"]
    return timm.models.swin_transformer.SwinTransformer(
        embed_dim=width, depths=depths, num_heads=heads, window_size=3, img_size=96, num_classes=5
    )


def _authors_names(state):
    """A whole classifier in the authors' naming, made from timm's."""

    def rename(name):
        later = re.sub(r"^head\.fc", "head", name)
        return re.sub(
            r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", later
        )

    buffers = {
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(9, 9, dtype=torch.long),
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 9, 9),
    }
    return {**{rename(name): value for name, value in state.items()}, **buffers}


def _build(weights, **options):
    return SwinBackbone(variant="miniature", window_size=3, weights=str(weights), **options).eval()


@pytest.mark.parametrize("form", ["timm", "authors", "nested", "own"])
def test_files_in_all_namings_give_the_features_of_timm(form, tmp_path):
    whole = _timm_model().eval()
    state = whole.state_dict()
    if form in ("authors", "nested"):
        state = _authors_names(state)
    if form == "own":
        torch.save(state, tmp_path / "timm.pth")
        state = _build(tmp_path / "timm.pth").state_dict()
    torch.save({"model": state} if form == "nested" else state, tmp_path / "w.pth")
    model = _build(tmp_path / "w.pth")
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        features = model(images)
        # At this size timm has several windows in all stages but the last.
        expected = whole.forward_intermediates(images, intermediates_only=True)[:3]
    for i, wanted in enumerate(expected):
        normed = model.get_submodule(f"norm{i}")(wanted.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(features[f"res{i + 2}"], normed, rtol=1e-4, atol=1e-4)
    for name in ("weight", "bias"):
        found = model.layers[2].downsample.norm.state_dict()[name]
        assert torch.equal(found, whole.layers[3].downsample.norm.state_dict()[name])


def test_output_norms_in_the_file_are_taken(tmp_path):
    source = _build("")
    source.norm2.weight.data.fill_(0.5)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    assert (_build(tmp_path / "w.pth").norm2.weight == 0.5).all()


def test_weights_of_another_window_name_the_tensors(tmp_path):
    state = SwinBackbone(variant="miniature", window_size=4).state_dict()
    del state["patch_embed.norm.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"bias_table is \(49, 1\), expected \(25, 1\)") as error:
        _build(tmp_path / "w.pth")
    assert "Swin miniature with window 3" in str(error.value)
    assert "patch_embed.norm.bias is missing" in str(error.value)


def test_a_file_that_is_not_there():
    message = r"MODEL\.SWIN\.WEIGHTS is 'imagenet21k': neither of '', 'imagenet', 'imagenet22k' nor"
    with pytest.raises(FileNotFoundError, match=message):
        _build("imagenet21k")


@pytest.mark.parametrize(
    ("variant", "window", "data_set", "name"),
    [
        ("tiny", 7, "imagenet", "swin_tiny_patch4_window7_224.ms_in1k"),
        ("small", 7, "imagenet", "swin_small_patch4_window7_224.ms_in1k"),
        ("base", 12, "imagenet", "swin_base_patch4_window12_384.ms_in1k"),
        ("base", 7, "imagenet22k", "swin_base_patch4_window7_224.ms_in22k"),
        ("large", 12, "imagenet22k", "swin_large_patch4_window12_384.ms_in22k"),
    ],
)
def test_names_of_published_weights(variant, window, data_set, name):
    assert swin_weights.timm_name(variant, window, data_set) == name


@pytest.mark.parametrize(
    ("variant", "window", "data_set"), [("large", 12, "imagenet"), ("tiny", 8, "imagenet22k")]
)
def test_weights_that_were_never_published(variant, window, data_set):
    with pytest.raises(ValueError, match=rf"VARIANT '{variant}'.*swin_base_patch4_window12_384"):
        swin_weights.timm_name(variant, window, data_set)


def test_imagenet_weights_come_through_timm(monkeypatch):
    whole, asked = _timm_model(), []

    def create(name, pretrained):
        asked.append((name, pretrained))
        return whole

    monkeypatch.setattr(timm_weights.timm, "create_model", create)
    monkeypatch.setattr(swin_weights, "timm_name", lambda *_: "some_swin.ms_in22k")
    model = _build("imagenet22k")
    assert asked == [("some_swin.ms_in22k", True)]
    assert torch.equal(model.patch_embed.proj.weight, whole.patch_embed.proj.weight)


def test_weights_that_cannot_be_fetched(monkeypatch):
    def create(name, pretrained):
        raise OSError("no route")

    monkeypatch.setattr(timm_weights.timm, "create_model", create)
    with pytest.raises(
        RuntimeError, match=r"MODEL\.SWIN\.WEIGHTS asks for ImageNet weights.*ms_in1k.*no route"
    ):
        SwinBackbone(variant="tiny", weights="imagenet")


def test_configs_without_weights_of_the_backbone(tiny_config, monkeypatch):
    keys = {"MODEL.SWIN.WEIGHTS": "imagenet22k", "MODEL.TIMM.WEIGHTS": "imagenet"}
    cfg = tiny_config(keys=keys)
    cfg.freeze()
    changed = without_initial_weights(cfg)
    assert (changed.MODEL.SWIN.WEIGHTS, changed.MODEL.TIMM.WEIGHTS) == ("", "")
    assert changed.is_frozen()
    assert cfg.MODEL.SWIN.WEIGHTS == "imagenet22k"
    local = without_downloads(tiny_config(keys={"MODEL.SWIN.WEIGHTS": "some/file.pth"}))
    assert local.MODEL.SWIN.WEIGHTS == "some/file.pth"
    for packaged in (False, True):
        monkeypatch.setattr(
            "mask_transformers.backbones.initial_weights.is_packaged", lambda _, p=packaged: p
        )
        local = without_downloads(cfg)
        assert local.MODEL.SWIN.WEIGHTS == ""
        assert ("imagenet" if packaged else "") == local.MODEL.TIMM.WEIGHTS
