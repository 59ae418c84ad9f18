import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from timm.layers import DropPath
from torch import nn

from mask_transformers.layers.conv_norm import ConvNorm, SyncNorm
from mask_transformers.pixel_decoders.axial import AxialBlock, AxialPixelDecoder, Bottleneck, Fuse
from mask_transformers.registry import PIXEL_DECODERS

CHANNELS = {"res2": 3, "res3": 5, "res4": 7, "res5": 9}
# Official names of tensors to ours.
NAMES = {
    "_in_norms": "in_norms",
    "_stages": "stages",
    "._blocks": "",
    "_conv1_bn_act": "conv1",
    "_conv2_bn_act": "conv2",
    "_conv3_bn": "conv3",
    "_shortcut": "shortcut",
    "_attention": "attention",
    "_height_axis": "height",
    "_width_axis": "width",
    "qkv_transform.conv": "qkv",
    "_batch_norm_qkv": "qkv_norm",
    "_batch_norm_similarity": "similarity_norm",
    "_batch_norm_retrieved_output": "output_norm",
    "_query_rpe._embeddings": "query_position",
    "_key_rpe._embeddings": "key_position",
    "_value_rpe._embeddings": "value_position",
    "_resized_fuses": "fuses",
    "_conv_bn_low": "low",
    "_conv_bn_high": "high",
}


def _shapes(channels):
    strides = zip(channels.items(), (4, 8, 16, 32), strict=False)
    return {name: ShapeSpec(channels=c, stride=stride) for (name, c), stride in strides}


def _decoder(in_features=tuple(CHANNELS), blocks=(1, 2, 1, 2), width=32, heads=2, drop_path=0.0):
    return AxialPixelDecoder(
        _shapes(CHANNELS),
        in_features=list(in_features),
        blocks=list(blocks),
        width=width,
        heads=heads,
        drop_path=drop_path,
    )


def _features(batch=2, height=64, width=96):
    return {
        name: torch.randn(batch, c, -(-height // stride), -(-width // stride))
        for (name, c), stride in zip(CHANNELS.items(), (4, 8, 16, 32), strict=True)
    }


def _randomise(module):
    for part in module.modules():
        if isinstance(part, SyncNorm):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module.double()


def _conv_norm(module, x, training):
    """Convolution by explicit windows, then batch norm."""
    side = module.conv.kernel_size[0]
    windows = F.unfold(x, side, padding=side // 2)  # (N, C·side², h·w)
    y = torch.einsum("ok,nkp->nop", module.conv.weight.flatten(1), windows)
    norm = module.norm
    mean = y.mean((0, 2)) if training else norm.running_mean
    var = y.var((0, 2), unbiased=False) if training else norm.running_var
    y = (y - mean[:, None]) / (var[:, None] + 1e-3).sqrt()
    return (y * norm.weight[:, None] + norm.bias[:, None]).unflatten(2, x.shape[2:])


def _gelu(x):
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def _reference_block(block, x, training):
    x = _gelu(x)
    shortcut = x
    if isinstance(block.shortcut, ConvNorm):
        shortcut = _conv_norm(block.shortcut, x, training)
    x = _gelu(_conv_norm(block.conv1, x, training))
    if isinstance(block, Bottleneck):
        x = _conv_norm(block.conv2, x, training)
    else:
        x = block.attention(x)
    return _conv_norm(block.conv3, _gelu(x), training) + shortcut


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("in_channels", [5, 16])
@pytest.mark.parametrize("kind", [Bottleneck, AxialBlock])
def test_blocks(kind, in_channels, training):
    block = _randomise(kind(in_channels, 4) if kind is Bottleneck else kind(in_channels, 4, 2))
    assert isinstance(block.shortcut, ConvNorm) == (in_channels == 5)
    x = torch.randn(2, in_channels, 6, 5).double()
    block.train(training)
    torch.testing.assert_close(block(x), _reference_block(block, x, training))


def test_a_new_block_is_its_shortcut():
    block = AxialBlock(16, 4, 2)
    x = torch.randn(2, 16, 5, 6)
    torch.testing.assert_close(block(x), F.gelu(x))


@pytest.mark.parametrize("training", [False, True])
def test_fuse(training):
    fuse = _randomise(Fuse(5, 3, 4)).train(training)
    low, high = torch.randn(2, 5, 3, 3).double(), torch.randn(2, 3, 5, 5).double()
    coarse = _conv_norm(fuse.low, _gelu(low), training)
    found = fuse(low, high) - _conv_norm(fuse.high, _gelu(high), training)
    # Of odd sizes, every pixel of the coarse map lies on one of the fine map.
    torch.testing.assert_close(found[:, :, ::2, ::2], coarse)
    between = (coarse[:, :, 1:] + coarse[:, :, :-1]) / 2
    torch.testing.assert_close(found[:, :, 1::2, ::2], between)


def _reference_decoder(decoder, features):
    """Levels and mask features, coarse first, from the parts."""
    outputs = []
    for i, name in enumerate(["res5", "res4", "res3", "res2"]):
        norm, x = decoder.in_norms[i], features[name]
        mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
        x = (x - mean) / (var + 1e-6).sqrt()
        x = x * norm.weight[:, None, None] + norm.bias[:, None, None]
        if outputs:
            x = decoder.fuses[i - 1](outputs[-1], x)
        for block in decoder.stages[i]:
            x = _reference_block(block, x, training=False)
        outputs.append(x)
    return outputs


def test_decoder():
    decoder = _randomise(_decoder()).eval()
    for norm in decoder.in_norms:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    features = {name: x.double() for name, x in _features(1, 64, 32).items()}
    pixels = decoder(features)
    found = [*pixels.levels, pixels.mask_features]
    for a, b in zip(found, _reference_decoder(decoder, features), strict=True):
        torch.testing.assert_close(a, b)


# As 641 × 641, even, and neither square nor of one parity.
@pytest.mark.parametrize("size", [(65, 65), (64, 96), (70, 33), (97, 128), (1, 1)])
def test_any_size(size):
    decoder, features = _decoder().eval(), _features(1, *size)
    pixels = decoder(features)
    assert pixels.mask_features.shape == (1, 16, *features["res2"].shape[2:])
    assert pixels.projection is None
    assert decoder.level_channels == [128, 64, 32]
    for level, channels, name in zip(
        pixels.levels, decoder.level_channels, ["res5", "res4", "res3"], strict=True
    ):
        assert level.shape == (1, channels, *features[name].shape[2:])


def test_fewer_levels():
    decoder = _decoder(("res3", "res5"), blocks=(1, 1))
    pixels = decoder(_features())
    assert [tuple(level.shape) for level in pixels.levels] == [(2, 128, 2, 3)]
    assert pixels.mask_features.shape == (2, 64, 8, 12)


def test_axial_attention_at_the_two_coarsest_strides():
    kinds = [[type(block) for block in stage] for stage in _decoder().stages]
    assert kinds == [[AxialBlock], [AxialBlock] * 2, [Bottleneck], [Bottleneck] * 2]


def test_maps_beyond_the_tables_are_refused():
    features = {
        name: torch.zeros(1, c, 4 * scale, 2)
        for (name, c), scale in zip(CHANNELS.items(), (1024, 512, 256, 128), strict=True)
    }
    with pytest.raises(ValueError, match=r"255 positions .* has 512"):
        _decoder().eval()(features)


def test_batched_equals_single():
    decoder, features = _decoder().eval(), _features(3)
    with torch.no_grad():
        batched = decoder(features)
        for i in range(3):
            alone = decoder({name: x[i : i + 1] for name, x in features.items()})
            torch.testing.assert_close(
                batched.mask_features[i], alone.mask_features[0], rtol=1e-4, atol=1e-5
            )


def test_gradients_reach_all_parameters():
    decoder = _decoder()
    for name, part in decoder.named_modules():
        if name.endswith("conv3.norm"):
            nn.init.ones_(part.weight)  # which starts from 0
    pixels = decoder(_features())
    loss = sum(x.square().mean() for x in [pixels.mask_features, *pixels.levels])
    loss.backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        # What is added to all similarities of a pixel alike does not change its attention.
        assert parameter.grad.abs().sum() > 0 or name.endswith("similarity_norm.bias"), name


def test_training_updates_all_statistics():
    decoder = _decoder()
    decoder(_features())
    norms = {name: part for name, part in decoder.named_modules() if isinstance(part, SyncNorm)}
    assert len(norms) == 43
    for name, norm in norms.items():
        assert (norm.running_mean != 0).any(), name
        assert (norm.running_var != 1).all(), name


def test_drop_path():
    rates = [part.drop_prob for part in _decoder(drop_path=0.3).modules() if _is_drop(part)]
    assert rates == [0.3] * 6


def _is_drop(part):
    return isinstance(part, DropPath)


def _official(name):
    for official, own in NAMES.items():
        name = name.replace(official, own)
    return name


def _official_size(channels=(256, 512, 1024, 2048)):
    with torch.device("meta"):
        return AxialPixelDecoder(
            _shapes(dict(zip(CHANNELS, channels, strict=True))),
            in_features=list(CHANNELS),
            blocks=[1, 5, 1, 1],
            width=512,
        )


def test_official_sizes():
    shapes = {name: tuple(x.shape) for name, x in _official_size().state_dict().items()}
    assert shapes["in_norms.0.weight"] == (2048,)
    assert shapes["stages.0.0.conv1.conv.weight"] == (1024, 2048, 1, 1)
    assert shapes["stages.0.0.attention.height.qkv.weight"] == (2048, 1024, 1)
    assert shapes["stages.1.4.attention.width.similarity_norm.weight"] == (24,)
    assert shapes["stages.1.4.attention.width.output_norm.running_var"] == (1024,)
    assert shapes["stages.1.4.attention.width.value_position.weight"] == (509, 64)
    assert shapes["stages.1.0.shortcut.conv.weight"] == (1024, 256, 1, 1)
    assert shapes["stages.3.0.conv2.conv.weight"] == (64, 64, 3, 3)
    assert shapes["fuses.0.low.conv.weight"] == (256, 2048, 1, 1)
    assert shapes["fuses.2.high.conv.weight"] == (64, 256, 1, 1)


@pytest.mark.parametrize(
    ("manifest", "channels"),
    [("R50", (256, 512, 1024, 2048)), ("convnext_tiny", (96, 192, 384, 768))],
)
def test_official_tensors(shared, manifest, channels):
    path = shared / "parity" / "manifests" / f"kmax_{manifest}_coco_panoptic.tsv"
    prefix, official = "sem_seg_head.pixel_decoder.", {}
    for line in path.read_text().splitlines():
        name, shape, _ = line.split("\t")
        if name.startswith(prefix):
            sizes = tuple(int(size) for size in shape.split(",") if size)
            official[_official(name.removeprefix(prefix))] = sizes
    own = {name: tuple(x.shape) for name, x in _official_size(channels).state_dict().items()}
    assert own == official


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": ["res2", "res9"]}, r"IN_FEATURES names \['res9'\]"),
        ({"in_features": ["res5", "res2"]}, "fine to coarse"),
        ({"blocks": [1, 5]}, r"BLOCKS \[1, 5\] must have .* 4 features"),
        ({"blocks": [1, 0, 1, 1]}, r"BLOCKS \[1, 0, 1, 1\]"),
        ({"width": 36}, "WIDTH is 36.*multiple of 8"),
        ({"width": 24, "heads": 8}, "WIDTH is 24.*multiple of 16"),
    ],
)
def test_impossible_values_name_the_key(arguments, message):
    with pytest.raises(ValueError, match=message):
        _decoder(**arguments)


def test_from_config(tiny_config):
    key = "MODEL.MASK_TRANSFORMER.PIXEL_DECODER."
    keys = {
        "NAME": "AxialPixelDecoder",
        "WIDTH": 32,
        "HEADS": 4,
        "BLOCKS": [1, 2, 1, 1],
        "DROP_PATH_RATE": 0.1,
    }
    cfg = tiny_config(keys={key + name: value for name, value in keys.items()})
    decoder = PIXEL_DECODERS.get("AxialPixelDecoder")(cfg, _shapes(CHANNELS))
    assert [len(stage) for stage in decoder.stages] == [1, 2, 1, 1]
    assert decoder.stages[1][0].attention.height.heads == 4
    assert decoder.stages[3][0].drop_path.drop_prob == 0.1
    assert decoder.level_channels == [128, 64, 32]
