"""Miniature models and synthetic records, shared by all tests; nothing outside the checkout."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances

from mask_transformers import model_zoo
from mask_transformers.backbones import convnext, swin

CHECKOUT = Path(__file__).resolve().parents[1]
PANOPTIC = "mask2former_R50_coco_panoptic"

# Real depth of the backbone, but narrow, and everything else as small as the parts allow:
# group norm over 32 groups of a single pixel needs two channels a group.
MINIATURE = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.TIMM.NAME": "test_efficientnet",
    "MODEL.TIMM.WEIGHTS": "",
    "MODEL.SWIN.VARIANT": "miniature",
    "MODEL.SWIN.WINDOW_SIZE": 3,
    "MODEL.SWIN.DROP_PATH_RATE": 0.0,
    "MODEL.SWIN.WEIGHTS": "",
    "MODEL.CONVNEXT.VARIANT": "miniature",
    "MODEL.CONVNEXT.DROP_PATH_RATE": 0.0,
    "MODEL.CONVNEXT.WEIGHTS": "",
    "MODEL.MAX_RESNET.WIDTH": 8,
    "MODEL.MAX_RESNET.BLOCKS": [1, 1, 2, 1],
    "MODEL.MAX_RESNET.DECODER_BLOCKS": 1,
    "MODEL.MAX_RESNET.DROP_PATH_RATE": 0.0,
    "MODEL.MASK_TRANSFORMER.HIDDEN_DIM": 64,
    "MODEL.MASK_TRANSFORMER.MASK_DIM": 16,
    "MODEL.MASK_TRANSFORMER.QUERIES": 7,
    "MODEL.MASK_TRANSFORMER.PADDED_SIZE": [],
    "MODEL.MASK_TRANSFORMER.PIXEL_DECODER.WIDTH": 64,
    "MODEL.MASK_TRANSFORMER.PIXEL_DECODER.DROP_PATH_RATE": 0.0,
    "MODEL.MASK_TRANSFORMER.PIXEL_DECODER.LAYERS": 1,
    "MODEL.MASK_TRANSFORMER.PIXEL_DECODER.FFN_DIM": 32,
    "MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.DROP_PATH_RATE": 0.0,
    "MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.LAYERS": 3,
    "MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.FFN_DIM": 32,
    "MODEL.MASK_TRANSFORMER.LOSS.POINTS": 64,
}

# The last layer of DETR's mask head has a sixteenth of the width, in groups of eight.
MINIATURE_DETR = {"MODEL.MASK_TRANSFORMER.HIDDEN_DIM": 128}

# Our names → those of the official release, the other way round than checkpoint/name_maps.
_HEAD, _DECODER = "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."
_OFFICIAL = [
    (
        r"transformer_decoder\.layers\.(\d+)\.cross_attn\.",
        "cross_attention_layers",
        "multihead_attn.",
    ),
    (r"transformer_decoder\.layers\.(\d+)\.cross_norm\.", "cross_attention_layers", "norm."),
    (r"transformer_decoder\.layers\.(\d+)\.self_attn\.", "self_attention_layers", "self_attn."),
    (r"transformer_decoder\.layers\.(\d+)\.self_norm\.", "self_attention_layers", "norm."),
    (r"transformer_decoder\.layers\.(\d+)\.ffn_norm\.", "ffn_layers", "norm."),
    (r"transformer_decoder\.layers\.(\d+)\.", "ffn_layers", ""),
]
_OFFICIAL_PREFIXES = {
    "transformer_decoder.": _DECODER,
    "pixel_decoder.layers.": _HEAD + "transformer.encoder.layers.",
    "pixel_decoder.level_embed": _HEAD + "transformer.level_embed",
    "pixel_decoder.lateral.": _HEAD + "adapter_1.",
    "pixel_decoder.output.": _HEAD + "layer_1.",
    "pixel_decoder.": _HEAD,
}


# As deep as a Swin Transformer needs to be for every kind of block, and narrow.
swin.VARIANTS["miniature"] = swin.Variant(16, (2, 2, 2, 2), (1, 2, 2, 4))
convnext.VARIANTS["miniature"] = convnext.Variant(8, (1, 2, 1, 1))


@pytest.fixture(autouse=True)
def _reproducible():
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared():
    """The folder of reference outputs beside the checkout; tests that want it are skipped else."""
    path = Path(os.getenv("MASK_TRANSFORMERS_SHARED", CHECKOUT.parent / "shared"))
    if not (path / "parity").is_dir():
        pytest.skip("the folder of reference outputs is not here")
    return path


@pytest.fixture(scope="session")
def load_tool():
    """Function from the name of a script in tools/ to the module."""

    def load(name):
        spec = importlib.util.spec_from_file_location(
            f"tool_{name}", CHECKOUT / "tools" / f"{name}.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def run_tool(load_tool, monkeypatch):
    """Function from the name of a script in tools/ to a function that runs it with arguments."""

    def of(name):
        tool = load_tool(name)

        def call(*arguments):
            monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
            tool.main()

        return call

    return of


@pytest.fixture(scope="session")
def tiny_config():
    """Function (name, {key: value}) → the config of a zoo name in miniature."""

    get_config = model_zoo.get_config  # which tests may replace by this function

    def make(name=PANOPTIC, keys=None):
        cfg = get_config(name)
        system = MINIATURE_DETR if name.startswith("detr") else {}
        for key, value in {**MINIATURE, **system, **(keys or {})}.items():
            cfg.merge_from_list([key, value])
        return cfg

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_config):
    """Function (name, {key: value}) → a zoo model in miniature, random weights, in training."""
    return lambda name=PANOPTIC, keys=None: build_model(tiny_config(name, keys))


@pytest.fixture(scope="session")
def make_record():
    """Function (count of instances, size) → a record as mappers give it for training."""

    def make(count=2, size=(48, 64), name="some/image.png"):
        height, width = size
        instances = Instances(size)
        instances.gt_classes = torch.arange(count) % 3
        instances.gt_masks = BitMasks(torch.rand(count, height, width) > 0.5)
        corners = torch.rand(count, 2, 2).sort(1).values * torch.tensor([width, height])
        instances.gt_boxes = Boxes(corners.flatten(1))
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        return {"image": image, "instances": instances, "file_name": name}

    return make


@pytest.fixture(scope="session")
def official_name():
    """Function from our name of a Mask2Former tensor to the official one."""

    def rename(name):
        for pattern, layers, rest in _OFFICIAL:
            if match := re.match(pattern, name):
                return f"{_DECODER}transformer_{layers}.{match[1]}.{rest}{name[match.end() :]}"
        for prefix, official in _OFFICIAL_PREFIXES.items():
            if name.startswith(prefix):
                return official + name[len(prefix) :]
        return name

    return rename


@pytest.fixture(scope="session")
def official_state(official_name):
    """Function from a model to its state dict as the official release would write it."""

    def convert(model):
        state = {official_name(name): value for name, value in model.state_dict().items()}
        return {**state, "criterion.empty_weight": torch.ones(4)}

    return convert
