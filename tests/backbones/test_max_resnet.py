import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask_transformers.backbones.max_resnet import MaXResNet, StageBuilder
from mask_transformers.layers.axial_attention import AxialAttention
from mask_transformers.layers.conv_norm import SyncNorm
from mask_transformers.layers.residual_blocks import AxialBlock, BasicBlock, Bottleneck

DIM, QUERIES = 32, 5


def _backbone(large=False, **options):
    stages = ("res4", "res5") if large else ("res5",)
    builder = StageBuilder(
        basic=large,
        width=8,
        memory_dim=DIM,
        transformer_stages=stages,
        axial_heads=2,
        heads=2,
        ffn_dim=16,
        **options,
    )
    backbone = MaXResNet(builder, blocks=[1, 2, 3, 2], stacks=int(large)).eval()
    for part in backbone.modules():
        if isinstance(part, SyncNorm):
            nn.init.uniform_(part.weight, 0.5, 1)
            nn.init.normal_(part.bias, std=0.1)
    return backbone


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("size", [(49, 65), (33, 33), (16, 40)])
def test_sizes_of_the_features(large, size):
    images, memory = torch.randn(2, 3, *size), torch.randn(2, DIM, QUERIES)
    with torch.no_grad():
        pixels, after, features = _backbone(large)(images, memory)
    assert after.shape == memory.shape
    channels = {4: 32, 8: 64, 16: 256} | ({2: 16} if large else {})
    assert set(features) == set(channels)
    for stride, maps in features.items():
        height, width = (-(-side // stride) for side in size)
        assert maps.shape == (2, channels[stride], height, width)
    assert pixels.shape == features[16].shape
    assert (pixels is features[16]) != large  # an hourglass follows


@pytest.mark.parametrize("large", [False, True])
def test_kinds_of_blocks(large):
    backbone = _backbone(large)
    plain = BasicBlock if large else Bottleneck
    kinds = {name: [type(b) for b in stage.blocks] for name, stage in backbone.stages.items()}
    assert kinds.pop("res1", [plain] * 3) == [plain] * 3
    assert kinds == {
        "res2": [plain],
        "res3": [plain] * 2,
        "res4": [plain, AxialBlock, AxialBlock],
        "res5": [AxialBlock, AxialBlock],
    }
    layers = {name: len(stage.transformers) for name, stage in backbone.stages.items()}
    assert (layers["res2"], layers["res3"]) == (0, 0)
    assert (layers["res4"], layers["res5"]) == (3 if large else 0, 2)
    assert ("res1" in layers) == large
    hidden = {name: backbone.stages[name].transformers for name in ("res4", "res5")}
    widths = {name: [layer.splits[-1] for layer in layers] for name, layers in hidden.items()}
    assert widths == {"res4": [DIM // 2] * 3 if large else [], "res5": [DIM] * 2}


def test_the_widths_of_the_published_networks():
    """Channels of values in axial attention: half of a stage's in S, all of them in L."""
    for large, expected in ((False, [64, 64, 128, 128]), (True, [128, 128, 256, 256, 256])):
        values = [
            part.height.depths[-1]
            for part in _backbone(large).modules()
            if isinstance(part, AxialAttention)
        ]
        assert values == expected


@torch.no_grad()
def _run(stage, pixels, memory):
    for i, block in enumerate(stage.blocks):
        pixels = block(pixels)
        if len(stage.transformers):
            pixels, memory = stage.transformers[i](pixels, memory)
    return pixels, memory


@torch.no_grad()
def _fuse(step, x, skip):
    y = step.fuse.project(F.relu(x))
    return skip + F.interpolate(y, size=skip.shape[2:], mode="bilinear", align_corners=True)


def test_the_way_through_the_large_network():
    backbone = _backbone(large=True)
    images, memory = torch.randn(1, 3, 49, 65), torch.randn(1, DIM, QUERIES)
    with torch.no_grad():
        found = backbone(images, memory)
        x = backbone.stem(images)
    maps = {}
    for name in ("res1", "res2", "res3", "res4", "res5"):
        x, memory = _run(backbone.stages[name], x, memory)
        maps[name] = x
    one, two, three, four = backbone.steps
    up8, memory = _run(one.stage, _fuse(one, x, maps["res3"]), memory)
    up4, memory = _run(two.stage, _fuse(two, up8, maps["res2"]), memory)
    down8, memory = _run(three.stage, _fuse(three, up4, maps["res3"]), memory)
    down16, memory = _run(four.stage, _fuse(four, down8, maps["res5"]), memory)
    torch.testing.assert_close(found[0], down16)
    torch.testing.assert_close(found[1], memory)


def test_stride_two_is_in_the_blocks():
    """No pooling: the first block of res2 has a stride, in S, and no block of res1, in L."""
    small, large = _backbone(), _backbone(large=True)
    assert small.stages["res2"].blocks[0].conv2.conv.stride == (2, 2)
    assert large.stages["res1"].blocks[0].conv1.conv.stride == (1, 1)
    assert large.stages["res2"].blocks[0].conv1.conv.stride == (2, 2)
    assert large.stages["res5"].blocks[0].shortcut.conv.stride == (1, 1)


def test_activation_checkpointing_changes_nothing():
    plain, saving = _backbone(), _backbone(activation_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    images, memory = torch.randn(2, 3, 33, 33), torch.randn(2, DIM, QUERIES)
    gradients = []
    for backbone in (plain, saving):
        pixels, after, _ = backbone.train()(images, memory)
        (pixels.square().mean() + after.square().mean()).backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for (name, ours), theirs in zip(saving.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
