import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

import mask_transformers  # noqa: F401  (registers the backbone)
from mask_transformers.layers.conv_norm import SyncNorm


def _build(norm="SyncBN", freeze_at=0):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    resnets = cfg.MODEL.RESNETS
    resnets.NORM, resnets.STRIDE_IN_1X1 = norm, False
    resnets.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    resnets.STEM_OUT_CHANNELS, resnets.RES2_OUT_CHANNELS, resnets.WIDTH_PER_GROUP = 8, 16, 4
    cfg.freeze()
    build = BACKBONE_REGISTRY.get("build_kmax_resnet_backbone")
    return build(cfg, ShapeSpec(channels=3))


def _norms(module):
    return [m.norm for m in module.modules() if getattr(m, "norm", None) is not None]


def test_every_norm_has_the_constants_of_the_authors():
    norms = _norms(_build())
    assert len(norms) == 53
    assert all(type(norm) is SyncNorm for norm in norms)
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_frozen_stages_keep_the_epsilon():
    model = _build(freeze_at=2)
    frozen = _norms(model.stem) + _norms(model.res2)
    assert {type(norm) for norm in frozen} == {FrozenBatchNorm2d}
    assert {norm.eps for norm in frozen} == {1e-3}
    assert {type(norm) for norm in _norms(model.res3)} == {SyncNorm}
    assert not any(parameter.requires_grad for parameter in model.res2.parameters())


def test_corners_stay_on_corners_at_odd_sizes():
    model = _build()
    with torch.no_grad():
        features = model(torch.randn(1, 3, 97, 161))
    shapes = {name: tuple(feature.shape[2:]) for name, feature in features.items()}
    assert shapes == {"res2": (25, 41), "res3": (13, 21), "res4": (7, 11), "res5": (4, 6)}


def test_training_on_a_cpu_updates_the_statistics():
    model = _build()
    model(torch.randn(2, 3, 33, 33))["res5"].sum().backward()
    norm = model.stem.conv1.norm
    assert not torch.equal(norm.running_var, torch.ones_like(norm.running_var))


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", ""])
def test_other_norms_are_refused(norm):
    with pytest.raises(ValueError, match=r"MODEL\.RESNETS\.NORM \"SyncBN\", not"):
        _build(norm)
