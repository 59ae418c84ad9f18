"""The dual-path transformer against its equations, written slot by slot and pixel by pixel."""

import pytest
import torch
from torch import nn

from mask_transformers.layers.conv_norm import SyncNorm
from mask_transformers.layers.residual_blocks import Bottleneck
from mask_transformers.transformer_decoders.dual_path import DualPathLayer, DualPathStage

C, D, HIDDEN, HEADS, QUERIES, SIZE = 6, 10, 16, 2, 5, (3, 4)


def _randomise(module):
    for part in module.modules():
        if isinstance(part, SyncNorm):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module.double()


@pytest.fixture
def layer():
    return _randomise(DualPathLayer(C, D, hidden_dim=HIDDEN, heads=HEADS, ffn_dim=12))


@pytest.fixture
def paths():
    return torch.randn(2, C, *SIZE).double(), torch.randn(2, D, QUERIES).double()


def _norm(norm, y, training):
    """Batch norm of rows y (N, L, C)."""
    mean = y.mean((0, 1)) if training else norm.running_mean
    var = y.var((0, 1), unbiased=False) if training else norm.running_var
    return (y - mean) / (var + 1e-3).sqrt() * norm.weight + norm.bias


def _linear(part, x, training):
    """Rows x (N, L, C) through a convolution of one position and its norm."""
    weight = part.conv.weight.flatten(1)
    return _norm(part.norm, torch.einsum("nlc,oc->nlo", x, weight), training)


def _attention(attention, query, key, value, training):
    """Σ_n softmax_n(norm(q · k_n)) v_n for rows (N, L, C) of each, normed and activated."""
    depth, width = query.shape[2] // HEADS, value.shape[2] // HEADS
    norm = attention.similarity_norm
    sums = []
    for h in range(HEADS):
        q, k = (x[..., h * depth : (h + 1) * depth] for x in (query, key))
        similarity = torch.einsum("nac,nbc->nab", q, k)
        mean = similarity.mean() if training else norm.running_mean[h]
        var = similarity.var(unbiased=False) if training else norm.running_var[h]
        similarity = (similarity - mean) / (var + 1e-3).sqrt() * norm.weight[h] + norm.bias[h]
        weights = similarity.exp() / similarity.exp().sum(2, keepdim=True)
        sums.append(torch.einsum("nab,nbd->nad", weights, value[..., h * width : (h + 1) * width]))
    return _norm(attention.output_norm, torch.cat(sums, 2), training).clamp(min=0)


def _reference(layer, pixels, memory, training):
    x, m = pixels.flatten(2).transpose(1, 2), memory.transpose(1, 2)  # rows
    pixel = _linear(layer.pixel_in, x.clamp(min=0), training).clamp(min=0)
    slot = _linear(layer.memory_in, m, training).clamp(min=0)
    q_p, k_p, v_p = _linear(layer.pixel_qkv, pixel, training).split([8, 8, 16], 2)
    q_m, k_m, v_m = _linear(layer.memory_qkv, slot, training).split([8, 8, 16], 2)
    k_pm, v_pm = torch.cat([k_p, k_m], 1), torch.cat([v_p, v_m], 1)
    y_m = _attention(layer.memory_attention, q_m, k_pm, v_pm, training)
    m = (m + _linear(layer.memory_out, y_m, training)).clamp(min=0)
    hidden = _linear(layer.ffn_in, m, training).clamp(min=0)
    m = (m + _linear(layer.ffn_out, hidden, training)).clamp(min=0)
    y_p = _attention(layer.pixel_attention, q_p, k_m, v_m, training)
    x = x + _linear(layer.pixel_out, y_p, training)
    return x.transpose(1, 2).unflatten(2, SIZE), m.transpose(1, 2)


@pytest.mark.parametrize("training", [False, True])
def test_the_layer_is_that_of_the_equations(layer, paths, training):
    found = layer.train(training)(*paths)
    wanted = _reference(layer, *paths, training)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_new_layer_keeps_pixels_and_activates_memory(paths):
    layer = DualPathLayer(C, D, hidden_dim=HIDDEN, heads=HEADS).double()
    pixels, memory = layer(*paths)
    torch.testing.assert_close(pixels, paths[0])
    torch.testing.assert_close(memory, paths[1].clamp(min=0))


def test_slots_have_no_order(layer, paths):
    pixels, memory = paths
    order = torch.randperm(QUERIES)
    wanted = layer.eval()(pixels, memory)
    found = layer(pixels, memory[:, :, order])
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1][:, :, order])


def test_batched_is_single(layer, paths):
    layer.eval()
    both = layer(*paths)
    for i in range(2):
        one = layer(*(path[i : i + 1] for path in paths))
        for ours, theirs in zip(one, both, strict=True):
            torch.testing.assert_close(ours[0], theirs[i])


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_a_stage(paths, layer, activation_checkpointing):
    pixels = torch.randn(2, 8, *SIZE).double()
    blocks = [_randomise(Bottleneck(8, 2)) for _ in range(2)]
    layers = [
        _randomise(DualPathLayer(8, D, hidden_dim=HIDDEN, heads=HEADS, ffn_dim=12))
        for _ in range(2)
    ]
    stage = DualPathStage(blocks, layers, activation_checkpointing=activation_checkpointing)
    x, m = pixels, paths[1]
    for block, transformer in zip(blocks, layers, strict=True):
        x, m = transformer(block(x), m)
    found = stage(pixels, paths[1])
    torch.testing.assert_close(found[0], x)
    torch.testing.assert_close(found[1], m)


def test_a_stage_without_transformers_keeps_memory(paths):
    stage = DualPathStage([nn.Identity(), nn.Identity()])
    pixels, memory = stage(*paths)
    assert pixels is paths[0]
    assert memory is paths[1]
