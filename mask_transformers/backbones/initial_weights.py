"""Configs of models whose backbone need not start from pretrained weights."""

from detectron2.config import CfgNode

from . import convnext_weights, swin_weights
from .timm_weights import is_packaged


def without_initial_weights(cfg: CfgNode) -> CfgNode:
    """A copy of ``cfg`` without weights of the backbone, for models that a checkpoint fills."""
    return _changed(cfg, timm="", swin="", convnext="")


def without_downloads(cfg: CfgNode) -> CfgNode:
    """A copy of ``cfg`` without weights of the backbone that are not in the installation."""
    timm, swin, convnext = cfg.MODEL.TIMM, cfg.MODEL.SWIN, cfg.MODEL.CONVNEXT
    fetched = timm.WEIGHTS == "imagenet" and not is_packaged(timm.NAME)
    return _changed(
        cfg,
        timm="" if fetched else timm.WEIGHTS,
        swin="" if swin.WEIGHTS in swin_weights.DATA_SETS else swin.WEIGHTS,
        convnext="" if convnext.WEIGHTS in convnext_weights.DATA_SETS else convnext.WEIGHTS,
    )


def _changed(cfg: CfgNode, timm: str, swin: str, convnext: str) -> CfgNode:
    frozen = cfg.is_frozen()
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.TIMM.WEIGHTS = timm
    cfg.MODEL.SWIN.WEIGHTS = swin
    cfg.MODEL.CONVNEXT.WEIGHTS = convnext
    if frozen:
        cfg.freeze()
    return cfg
