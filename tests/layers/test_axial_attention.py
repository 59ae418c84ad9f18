import pytest
import torch

from mask_transformers.layers.axial_attention import (
    MAX_LENGTH,
    AxialAttention,
    AxisAttention,
    by_distance,
)
from mask_transformers.layers.conv_norm import SyncNorm

CHANNELS, KEYS, VALUES, HEADS = 5, 6, 12, 3


def _randomise(module):
    """Norms that are far from the identity; float64, to compare digits."""
    for part in module.modules():
        if isinstance(part, SyncNorm):
            torch.nn.init.uniform_(part.weight, 0.5, 2)
            torch.nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module.double()


def _axis(axis=2, training=False):
    module = AxisAttention(CHANNELS, KEYS, VALUES, HEADS, axis=axis)
    return _randomise(module).train(training)


def _norm(norm, x, training):
    """The batch norm of ``x`` (B, C, ...)."""
    others = [0, *range(2, x.dim())]
    mean = x.mean(others) if training else norm.running_mean
    var = x.var(others, unbiased=False) if training else norm.running_var
    shape = (1, -1, *[1] * (x.dim() - 2))
    y = (x - mean.view(shape)) / (var.view(shape) + 1e-3).sqrt()
    return y * norm.weight.view(shape) + norm.bias.view(shape)


def _positions(table, length):
    rows = [[table.weight[m - col + 254] for m in range(length)] for col in range(length)]
    return torch.stack([torch.stack(row) for row in rows])  # (L, L, d)


def _reference(attention, lines, training):
    """Equation 4 for ``lines`` (B, C, L), with a norm wherever the papers have one."""
    length, heads = lines.shape[2], attention.heads
    qkv = torch.einsum("oc,bcl->bol", attention.qkv.weight[:, :, 0], lines)
    qkv = _norm(attention.qkv_norm, qkv, training)
    q, k, v = (part.unflatten(1, (heads, -1)) for part in qkv.split([KEYS, KEYS, VALUES], 1))
    r_q, r_k, r_v = (
        _positions(table, length)
        for table in (attention.query_position, attention.key_position, attention.value_position)
    )
    content = torch.einsum("bhdl,bhdm->bhlm", q, k)
    query_position = (q[..., :, None] * r_q.permute(2, 0, 1)).sum(2)
    key_position = (k[..., None, :] * r_k.permute(2, 0, 1)).sum(2)
    similarities = torch.cat([content, query_position, key_position], 1)
    similarities = _norm(attention.similarity_norm, similarities, training)
    by_content, by_query, by_key = similarities.chunk(3, 1)
    weights = (by_content + by_query + by_key).softmax(-1)
    retrieved = torch.einsum("bhlm,bhdm->bhdl", weights, v).flatten(1, 2)
    retrieved_position = torch.einsum("bhlm,lmd->bhdl", weights, r_v).flatten(1, 2)
    output = torch.cat([retrieved, retrieved_position], 1)
    return sum(_norm(attention.output_norm, output, training).chunk(2, 1))


def _reference_map(attention, x, axis, training):
    """The same for a map (N, C, H, W)."""
    moved = x.movedim(axis, -1)  # (N, C, other, L)
    lines = moved.transpose(1, 2).flatten(0, 1)
    output = _reference(attention, lines, training)
    return output.unflatten(0, (len(x), -1)).transpose(1, 2).movedim(-1, axis)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("size", [(5, 4), (4, 7), (1, 3), (6, 1)])
def test_equation(axis, training, size):
    attention, x = _axis(axis, training), torch.randn(2, CHANNELS, *size).double()
    torch.testing.assert_close(attention(x), _reference_map(attention, x, axis, training))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("axis", [2, 3])
def test_gradients(axis, training):
    attention, x = _axis(axis, training), torch.randn(2, CHANNELS, 4, 5).double()
    x.requires_grad_()
    inputs = [x, *attention.parameters()]
    probe = torch.randn(2, VALUES, 4, 5).double()
    found = torch.autograd.grad((attention(x) * probe).sum(), inputs, allow_unused=True)
    output = _reference_map(attention, x, axis, training)
    wanted = torch.autograd.grad((output * probe).sum(), inputs)
    for name, a, b in zip(["x", *dict(attention.named_parameters())], found, wanted, strict=True):
        if name == "similarity_norm.bias":
            assert b.abs().max() < 1e-9  # the softmax does not see it
            continue
        assert b.abs().max() > 1e-6, name
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


def test_training_updates_all_statistics():
    attention, x = _axis(training=True), torch.randn(2, CHANNELS, 4, 5).double()
    before = {name: buffer.clone() for name, buffer in attention.named_buffers()}
    weight = attention.qkv.weight[:, :, 0]
    projected = torch.einsum("oc,nchw->onhw", weight, x).flatten(1)
    attention(x)
    for name, buffer in attention.named_buffers():
        assert (buffer != before[name]).all(), name
    expected = 0.99 * before["qkv_norm.running_mean"] + 0.01 * projected.mean(1)
    torch.testing.assert_close(attention.qkv_norm.running_mean, expected)


@pytest.mark.parametrize("axis", [2, 3])
def test_pixels_see_their_line_alone(axis):
    attention, x = _axis(axis), torch.randn(1, CHANNELS, 4, 5).double()
    changed = x.clone()
    changed[:, :, 1, 2] += 1
    seen = (attention(x) - attention(changed)).abs().amax((0, 1)) > 1e-9  # (H, W)
    wanted = torch.zeros(4, 5, dtype=torch.bool)
    wanted[(slice(None), 2) if axis == 2 else 1] = True
    assert (seen == wanted).all()


def test_height_comes_before_width():
    attention = _randomise(AxialAttention(CHANNELS, KEYS, VALUES, HEADS)).eval()
    x = torch.randn(2, CHANNELS, 4, 5).double()
    columns = _reference_map(attention.height, x, 2, training=False)
    wanted = _reference_map(attention.width, columns, 3, training=False)
    torch.testing.assert_close(attention(x), wanted)


def test_batched_equals_single():
    attention = _randomise(AxialAttention(CHANNELS, KEYS, VALUES, HEADS)).eval()
    x = torch.randn(3, CHANNELS, 4, 5).double()
    torch.testing.assert_close(attention(x), torch.cat([attention(image[None]) for image in x]))


def test_memory_layout_does_not_matter():
    attention, x = _axis(), torch.randn(2, CHANNELS, 4, 5).double()
    other = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(attention(other), attention(x))


def test_mixed_precision():
    attention, x = _axis().float(), torch.randn(2, CHANNELS, 4, 5)
    exact = attention(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert (attention(x) - exact).norm() < 0.1 * exact.norm()
        attention.train()(x).sum().backward()


def test_distances_reach_the_ends_of_the_table():
    table = torch.arange(2.0 * MAX_LENGTH - 1)[:, None]
    rows = by_distance(table, MAX_LENGTH)[:, :, 0]
    positions = torch.arange(MAX_LENGTH)
    assert (rows == positions[None] - positions[:, None] + 254).all()
    assert (by_distance(table, 1) == 254).all()


@pytest.mark.parametrize(("axis", "size"), [(2, (256, 1)), (3, (2, 256))])
def test_a_longer_axis_names_length_and_limit(axis, size):
    attention = _axis(axis)
    longest = [min(side, 255) for side in size]
    assert attention(torch.zeros(1, CHANNELS, *longest).double()).isfinite().all()
    with pytest.raises(ValueError, match=f"255 positions.*dimension {axis} .* has 256"):
        attention(torch.zeros(1, CHANNELS, *size).double())


@pytest.mark.parametrize("depths", [(7, 12), (6, 10)])
def test_depths_that_heads_cannot_share(depths):
    with pytest.raises(ValueError, match=r"multiples of the 3 heads"):
        AxisAttention(CHANNELS, *depths, HEADS, axis=2)
