"""The zoo: one name, one config file, and the published checkpoint where there is one."""

from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import nn

from .backbones.initial_weights import without_downloads, without_initial_weights
from .checkpoint.load import load_official_state_dict
from .checkpoint.published import fetch
from .checkpoint.read import read_state_dict
from .config import add_mask_transformer_config


@dataclass(frozen=True)
class Published:
    """A release of the original authors and the score that they report for it.

    ``url`` is None where no file can be fetched and checked: its path must be given instead.
    """

    url: str | None
    metric: str
    score: float


_MASK2FORMER = "https://dl.fbaipublicfiles.com/maskformer/mask2former/"
_DETR = "https://dl.fbaipublicfiles.com/detr/"

PUBLISHED = {
    "mask2former_R50_coco_panoptic": Published(
        _MASK2FORMER + "coco/panoptic/maskformer2_R50_bs16_50ep/model_final_94dc52.pkl", "PQ", 51.9
    ),
    "mask2former_R101_coco_panoptic": Published(
        _MASK2FORMER + "coco/panoptic/maskformer2_R101_bs16_50ep/model_final_b807bd.pkl", "PQ", 52.6
    ),
    "mask2former_swin_tiny_coco_panoptic": Published(
        _MASK2FORMER + "coco/panoptic/maskformer2_swin_tiny_bs16_50ep/model_final_9fd0ae.pkl",
        "PQ",
        53.2,
    ),
    "mask2former_swin_large_coco_panoptic": Published(
        _MASK2FORMER
        + "coco/panoptic/maskformer2_swin_large_IN21k_384_bs16_100ep/model_final_f07440.pkl",
        "PQ",
        57.8,
    ),
    "mask2former_R50_coco_instance": Published(
        _MASK2FORMER + "coco/instance/maskformer2_R50_bs16_50ep/model_final_3c8ec9.pkl", "AP", 43.7
    ),
    "mask2former_R101_coco_instance": Published(
        _MASK2FORMER + "coco/instance/maskformer2_R101_bs16_50ep/model_final_eba159.pkl",
        "AP",
        44.2,
    ),
    "mask2former_swin_tiny_coco_instance": Published(
        _MASK2FORMER + "coco/instance/maskformer2_swin_tiny_bs16_50ep/model_final_86143f.pkl",
        "AP",
        45.0,
    ),
    "mask2former_swin_large_coco_instance": Published(
        _MASK2FORMER
        + "coco/instance/maskformer2_swin_large_IN21k_384_bs16_100ep/model_final_e5f453.pkl",
        "AP",
        50.1,
    ),
    "mask2former_R50_ade20k_semantic": Published(
        _MASK2FORMER + "ade20k/semantic/maskformer2_R50_bs16_160k/model_final_500878.pkl",
        "mIoU",
        47.2,
    ),
    "detr_R50_coco": Published(_DETR + "detr-r50-e632da11.pth", "box AP", 42.0),
    "detr_R50_dc5_coco": Published(_DETR + "detr-r50-dc5-f0fb7ef5.pth", "box AP", 43.3),
    "detr_R101_coco": Published(_DETR + "detr-r101-2c7b67e5.pth", "box AP", 43.5),
    "detr_R101_dc5_coco": Published(_DETR + "detr-r101-dc5-a2e86def.pth", "box AP", 44.9),
    "detr_R50_coco_panoptic": Published(_DETR + "detr-r50-panoptic-00ce5173.pth", "PQ", 43.4),
    "detr_R50_dc5_coco_panoptic": Published(
        _DETR + "detr-r50-dc5-panoptic-da08f1b1.pth", "PQ", 44.6
    ),
    "detr_R101_coco_panoptic": Published(_DETR + "detr-r101-panoptic-40021d53.pth", "PQ", 45.1),
    "kmax_R50_coco_panoptic": Published(None, "PQ", 53.3),
    "kmax_convnext_tiny_coco_panoptic": Published(None, "PQ", 55.5),
    "kmax_convnext_small_coco_panoptic": Published(None, "PQ", 56.7),
    "kmax_convnext_base_coco_panoptic": Published(None, "PQ", 57.2),
    "kmax_convnext_large_coco_panoptic": Published(None, "PQ", 58.0),
    "kmax_R50_cityscapes_panoptic": Published(None, "PQ", 63.5),
    "kmax_convnext_large_cityscapes_panoptic": Published(None, "PQ", 68.4),
    # As in the paper, which trained for longer than the recipe of its code does.
    "max_deeplab_S_coco_panoptic": Published(None, "PQ", 48.4),
    "max_deeplab_L_coco_panoptic": Published(None, "PQ", 51.1),
}


def config_folder() -> Path:
    """The folder of the config files, in a checkout or in an installed package."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _config_files() -> dict[str, Path]:
    files = config_folder().glob("*/*.yaml")
    return {file.stem: file for file in files if not file.stem.startswith("Base-")}


def names() -> list[str]:
    """All names of the zoo, sorted."""
    return sorted(_config_files())


def config_file(name: str) -> Path:
    """The config file of ``name``; KeyError lists the known names."""
    files = _config_files()
    if name not in files:
        raise KeyError(f"no model is called {name!r}; known names: {', '.join(sorted(files))}")
    return files[name]


def get_config(name: str) -> CfgNode:
    """The full config of ``name``, with the keys of this package."""
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    cfg.merge_from_file(str(config_file(name)))
    return cfg


def build(name: str, weights: str | Path | None = None, device: str = "cpu") -> nn.Module:
    """The model ``name`` in evaluation mode on ``device``.

    ``weights``: None for random ones (but those of the backbone, where the config has a file in
    the installation), "published" for the authors' checkpoint, or the path of a checkpoint with
    official names or ours. KeyError when nothing is published for ``name``, or nothing that can
    be fetched.
    """
    cfg = get_config(name)
    cfg.MODEL.DEVICE = device
    cfg = without_downloads(cfg) if weights is None else without_initial_weights(cfg)
    model = build_model(cfg)
    if weights is not None:
        load_official_state_dict(model, read_state_dict(_weight_file(name, weights)))
    return model.eval()


def _weight_file(name: str, weights: str | Path) -> str | Path:
    if weights != "published":
        return weights
    if name not in PUBLISHED:
        raise KeyError(f"no published weights for {name!r}; there are some for {_fetchable()}")
    url = PUBLISHED[name].url
    if url is None:
        raise KeyError(
            f"the published weights of {name!r} cannot be fetched from here: give the path of the "
            f"authors' file as weights; there are files for {_fetchable()}"
        )
    return fetch(url)


def _fetchable() -> list[str]:
    return [name for name, published in PUBLISHED.items() if published.url]
