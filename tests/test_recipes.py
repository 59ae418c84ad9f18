"""The config files of the image zoos: every row is there, with the recipe of its data set."""

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from mask_transformers import add_mask_transformer_config, model_zoo
from mask_transformers.data.metadata import class_count
from mask_transformers.engine.config_file import merge_config_file
from mask_transformers.engine.optimizer import parameter_groups

M, F = "mask2former", "maskformer"
SWINS = ("swin_tiny", "swin_small", "swin_base", "swin_base_in21k", "swin_large")
CITIES = ("R50", "R101", "swin_tiny", "swin_small", "swin_base_in21k", "swin_large")
# System, data set and task → backbones.
ROWS = {
    (M, "coco_panoptic"): ("R50", "R101", *SWINS),
    (M, "coco_instance"): ("R50", "R101", *SWINS),
    (M, "ade20k_semantic"): ("R50", "R101", *SWINS),
    (M, "ade20k_panoptic"): ("R50", "swin_large"),
    (M, "ade20k_instance"): ("R50", "swin_large"),
    (M, "cityscapes_panoptic"): CITIES,
    (M, "cityscapes_instance"): CITIES,
    (M, "cityscapes_semantic"): CITIES,
    (M, "mapillary_vistas_panoptic"): ("R50", "swin_large"),
    (M, "mapillary_vistas_semantic"): ("R50", "swin_large"),
    (F, "coco_panoptic"): ("R50", "R101", *(s for s in SWINS if s != "swin_base")),
    (F, "ade20k_semantic"): ("R50", "R101", "R101c", *SWINS),
    (F, "ade20k_panoptic"): ("R50", "R101"),
    (F, "cityscapes_semantic"): ("R101", "R101c"),
    (F, "mapillary_vistas_semantic"): ("R50",),
    ("perpixel_baseline", "ade20k_semantic"): ("R50",),
    ("perpixel_baseline_plus", "ade20k_semantic"): ("R50",),
}
NAMES = [f"{system}_{backbone}_{data}" for (system, data), row in ROWS.items() for backbone in row]
# Iterations, crop (LSJ: side), shortest side in tests.
RECIPES = {
    "mask2former_R50_coco_panoptic": (368750, 1024, 800),
    "mask2former_swin_large_coco_instance": (737500, 1024, 800),
    "mask2former_swin_small_ade20k_semantic": (160000, [512, 512], 512),
    "mask2former_swin_base_ade20k_semantic": (160000, [640, 640], 640),
    "mask2former_R50_ade20k_panoptic": (160000, [640, 640], 640),
    "mask2former_swin_tiny_cityscapes_instance": (90000, [512, 1024], 1024),
    "mask2former_R50_mapillary_vistas_semantic": (300000, [1024, 1024], 2048),
    "maskformer_R101c_ade20k_semantic": (160000, [512, 512], 512),
    "maskformer_swin_large_ade20k_semantic": (160000, [640, 640], 640),
    "maskformer_R50_ade20k_panoptic": (720000, [640, 640], 640),
    "maskformer_R101_coco_panoptic": (554400, [384, 600], 800),
    "maskformer_R50_mapillary_vistas_semantic": (300000, [1280, 1280], 2048),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_the_zoos_fits_its_data(name):
    cfg = model_zoo.get_config(name)
    node = cfg.MODEL.MASK_TRANSFORMER
    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        assert dataset in DatasetCatalog
        assert class_count(MetadataCatalog.get(dataset)) == node.NUM_CLASSES
    [train], [test] = cfg.DATASETS.TRAIN, cfg.DATASETS.TEST
    assert train.replace("train", "val") == test
    assert _queries(name) == node.QUERIES
    assert ("swin" in name) == (cfg.MODEL.BACKBONE.NAME == "build_swin_backbone")
    if "swin" not in name:
        assert f"R{cfg.MODEL.RESNETS.DEPTH}" in name
    elif "large" in name or "in21k" in name:
        assert cfg.MODEL.SWIN.WEIGHTS == "imagenet22k"


def _queries(name):
    large = name.startswith("mask2former_swin_large") and not name.endswith("semantic")
    return 200 if large else 100


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name):
    cfg = model_zoo.get_config(name)
    iterations, crop, shortest = RECIPES[name]
    lsj = cfg.INPUT.LSJ
    assert iterations == cfg.SOLVER.MAX_ITER
    assert (lsj.IMAGE_SIZE if lsj.ENABLED else cfg.INPUT.CROP.SIZE) == crop
    assert shortest == cfg.INPUT.MIN_SIZE_TEST
    assert (64 if "maskformer_R101_coco" in name else 16) == cfg.SOLVER.IMS_PER_BATCH
    swin_of_maskformer = name.startswith("maskformer_swin")
    assert (1.0 if swin_of_maskformer else 0.1) == cfg.SOLVER.BACKBONE_MULTIPLIER


# Depth, dilated, with masks.
DETR = {
    "detr_R50_coco": (50, False, False),
    "detr_R50_dc5_coco": (50, True, False),
    "detr_R101_coco": (101, False, False),
    "detr_R101_dc5_coco": (101, True, False),
    "detr_R50_coco_panoptic": (50, False, True),
    "detr_R50_dc5_coco_panoptic": (50, True, True),
    "detr_R101_coco_panoptic": (101, False, True),
}


@pytest.mark.parametrize("name", DETR)
def test_recipes_of_detr(name):
    cfg = model_zoo.get_config(name)
    depth, dilated, with_masks = DETR[name]
    node, solver = cfg.MODEL.MASK_TRANSFORMER, cfg.SOLVER
    assert depth == cfg.MODEL.RESNETS.DEPTH
    assert dilated == (cfg.MODEL.BACKBONE.NAME == "build_dilated_resnet_backbone")
    assert with_masks == node.MASK_HEAD.ENABLED == node.MASK_HEAD.FREEZE_DETECTOR
    assert (250 if with_masks else 91) == node.NUM_CLASSES
    assert ("" if with_masks else f"R-{depth}.pkl") == cfg.MODEL.WEIGHTS.rsplit("/", 1)[-1]
    end = "_panoptic" if with_masks else ""
    assert (f"coco_2017_train{end}",) == cfg.DATASETS.TRAIN
    assert (f"coco_2017_val{end}",) == cfg.DATASETS.TEST
    epoch = 118287 // solver.IMS_PER_BATCH
    epochs = (25, 15) if with_masks else (500, 400)
    assert (solver.MAX_ITER, *solver.STEPS) == tuple(epoch * count for count in epochs)


def test_detr_decays_every_weight(tiny_config, tiny_model):
    cfg = tiny_config("detr_R50_coco")
    groups = parameter_groups(cfg, tiny_model("detr_R50_coco"))
    rates = {(round(group["lr"], 9), group["weight_decay"]) for group in groups}
    assert rates == {(1e-4, 1e-4), (1e-5, 1e-4)}


# Iterations, batch, padded size, drop path of the backbone, queries.
KMAX = {
    "kmax_R50_coco_panoptic": (150000, 64, (1281, 1281), None, 128),
    "kmax_convnext_tiny_coco_panoptic": (150000, 64, (1281, 1281), 0.3, 128),
    "kmax_convnext_small_coco_panoptic": (150000, 64, (1281, 1281), 0.4, 128),
    "kmax_convnext_base_coco_panoptic": (150000, 64, (1281, 1281), 0.5, 128),
    "kmax_convnext_large_coco_panoptic": (150000, 64, (1281, 1281), 0.6, 128),
    "kmax_R50_cityscapes_panoptic": (60000, 32, (1025, 2049), None, 256),
    "kmax_convnext_large_cityscapes_panoptic": (60000, 32, (1025, 2049), 0.6, 256),
    "kmax_R50_ade20k_panoptic": (100000, 64, (641, 641), None, 128),
    "kmax_convnext_large_ade20k_panoptic": (100000, 64, (1281, 1281), 0.6, 128),
}


@pytest.mark.parametrize("name", KMAX)
def test_recipes_of_kmax(name):
    cfg = model_zoo.get_config(name)
    iterations, batch, size, drop_path, queries = KMAX[name]
    node, solver, lsj = cfg.MODEL.MASK_TRANSFORMER, cfg.SOLVER, cfg.INPUT.LSJ
    assert (iterations, batch, queries) == (solver.MAX_ITER, solver.IMS_PER_BATCH, node.QUERIES)
    assert tuple(node.PADDED_SIZE) == size
    assert (tuple(lsj.IMAGE_SHAPE) or (lsj.IMAGE_SIZE, lsj.IMAGE_SIZE)) == size
    assert size[1] >= cfg.INPUT.MAX_SIZE_TEST
    assert lsj.ENABLED
    assert cfg.INPUT.COPY_PASTE == 1
    assert cfg.INPUT.COLOR_JITTER
    assert (solver.LR_SCHEDULER_NAME, solver.POLY_POWER) == ("WarmupPolyLR", 0.9)
    assert (solver.WARMUP_ITERS, solver.WARMUP_FACTOR) == (5000, 0.001)
    assert (solver.WEIGHT_DECAY, solver.BACKBONE_MULTIPLIER) == (0.05, 0.1)
    assert not solver.CLIP_GRADIENTS.ENABLED
    assert (0.0003 if "cityscapes" in name else 0.0005) == solver.BASE_LR
    assert class_count(MetadataCatalog.get(cfg.DATASETS.TRAIN[0])) == node.NUM_CLASSES
    if drop_path is None:
        assert cfg.MODEL.BACKBONE.NAME == "build_kmax_resnet_backbone"
        assert cfg.MODEL.WEIGHTS.endswith("R-50.pkl")
        return
    assert (cfg.MODEL.BACKBONE.NAME, cfg.MODEL.WEIGHTS) == ("build_convnext_backbone", "")
    assert drop_path == cfg.MODEL.CONVNEXT.DROP_PATH_RATE
    assert cfg.MODEL.CONVNEXT.VARIANT in name
    large = cfg.MODEL.CONVNEXT.VARIANT in ("base", "large")
    assert ("imagenet22k" if large else "imagenet") == cfg.MODEL.CONVNEXT.WEIGHTS


def test_kmax_decays_weights_alone(tiny_config, tiny_model):
    cfg = tiny_config("kmax_R50_coco_panoptic")
    groups = parameter_groups(cfg, tiny_model("kmax_R50_coco_panoptic"))
    rates = {(round(group["lr"], 9), group["weight_decay"]) for group in groups}
    assert rates == {(5e-4, 0.05), (5e-5, 0.05), (5e-4, 0.0), (5e-5, 0.0)}


# Kind of blocks, blocks, memory, learning rate.
MAX = {
    "max_deeplab_S_coco_panoptic": ("bottleneck", [3, 4, 6, 3], 256, 0.001),
    "max_deeplab_L_coco_panoptic": ("basic", [3, 6, 3, 3], 512, 0.0003),
}


@pytest.mark.parametrize("name", MAX)
def test_recipes_of_max_deeplab(name):
    cfg = model_zoo.get_config(name)
    node, part, solver, lsj = (
        cfg.MODEL.MASK_TRANSFORMER, cfg.MODEL.MAX_RESNET, cfg.SOLVER, cfg.INPUT.LSJ
    )  # fmt: skip
    assert MAX[name] == (part.BLOCK, part.BLOCKS, node.HIDDEN_DIM, solver.BASE_LR)
    assert (solver.MAX_ITER, solver.IMS_PER_BATCH, node.QUERIES) == (100000, 64, 128)
    assert (lsj.IMAGE_SIZE, *node.PADDED_SIZE) == (641, 641, 641)
    assert cfg.INPUT.MAX_SIZE_TEST <= 641
    assert part.ACTIVATION_CHECKPOINTING
    assert (node.TEST.THING_AREA, node.TEST.STUFF_AREA, node.TEST.MASK_WISE) == (100, 1600, False)
    assert cfg.MODEL.BACKBONE.NAME == "build_max_resnet_backbone"
    assert class_count(MetadataCatalog.get(cfg.DATASETS.TRAIN[0])) == node.NUM_CLASSES


# The small configs → those whose data and schedule they have.
SMALL_MAX = {
    f"max_deeplab_small_{data}": f"mask2former_small_{data}"
    for data in (
        "shapes_panoptic", "custom_panoptic", "custom_instance", "custom_semantic", "cells_panoptic"
    )
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL_MAX)
def test_small_configs_of_max_deeplab(name):
    cfg, other = model_zoo.get_config(name), model_zoo.get_config(SMALL_MAX[name])
    assert cfg.MODEL.META_ARCHITECTURE == "MaXDeepLab"
    assert cfg.MODEL.BACKBONE.NAME == "build_max_timm_backbone"
    assert tuple(cfg.MODEL.TIMM.OUT_FEATURES) == ("res2", "res3", "res4")
    assert (cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.WEIGHTS) == (other.MODEL.TIMM.NAME, "imagenet")
    node, theirs = cfg.MODEL.MASK_TRANSFORMER, other.MODEL.MASK_TRANSFORMER
    assert (node.QUERIES, node.NUM_CLASSES) == (theirs.QUERIES, theirs.NUM_CLASSES)
    assert node.TEST.TASKS == theirs.TEST.TASKS
    assert (node.SIZE_DIVISIBILITY, node.PADDED_SIZE) == (16, [])
    assert cfg.SOLVER.IMS_PER_BATCH >= 2  # for batch norms of one value an image
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER) == (
        other.SOLVER.IMS_PER_BATCH, other.SOLVER.MAX_ITER
    )  # fmt: skip
    assert (cfg.DATASETS, cfg.INPUT) == (other.DATASETS, other.INPUT)


@pytest.mark.parametrize("name", [*NAMES, *DETR, *KMAX, *MAX, *SMALL_MAX])
def test_the_strict_reader_and_detectron2_agree(name):
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    merge_config_file(cfg, str(model_zoo.config_file(name)))
    assert cfg.dump() == model_zoo.get_config(name).dump()


CELLS = [n for n in model_zoo.names() if n.endswith("_small_cells_panoptic")]


@pytest.mark.parametrize("name", CELLS)
def test_all_systems_see_the_same_cells(name):
    """They differ in their parts, losses and learning rates alone."""
    cfg, model = model_zoo.get_config(name), model_zoo.get_config(CELLS[-1])
    assert cfg.MODEL.MASK_TRANSFORMER.QUERIES == 250
    assert cfg.MODEL.MASK_TRANSFORMER.HIDDEN_DIM == model.MODEL.MASK_TRANSFORMER.HIDDEN_DIM
    assert (cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.WEIGHTS) == ("tf_efficientnet_lite0", "imagenet")
    assert cfg.INPUT == model.INPUT
    assert cfg.SOLVER.IMS_PER_BATCH == 4
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 250
    assert "panoptic" in cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS


def test_five_systems_have_a_config_for_cells():
    assert len(CELLS) == 5
