"""The published Swin Transformer for segmentation, slowly: one window, head and query at a time.

``state`` is a state dict in the official names, in double precision.
"""

import math

import torch
from torch.nn import functional as F


def _norm(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[name + ".weight"], state[name + ".bias"])


def _linear(state, name, x):
    y = x @ state[name + ".weight"].T
    return y + state[name + ".bias"] if name + ".bias" in state else y


def _region(position, size, window, shift):
    """Third of a padded side that a position lies in, by the slices of the official code."""
    parts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    return next(i for i, part in enumerate(parts) if position in range(size)[part])


def _window_attention(state, name, x, places, regions, heads):
    """One window: x (L, C), its (row, column) ``places`` and the regions of its tokens."""
    window = round(math.sqrt(len(x)))
    queries, keys, values = _linear(state, name + ".qkv", x).chunk(3, dim=-1)
    table = state[name + ".relative_position_bias_table"]
    d = x.shape[-1] // heads
    output = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        for i, (row, column) in enumerate(places):
            scores = (keys[:, part] @ queries[i, part]) / math.sqrt(d)
            for j, (other_row, other_column) in enumerate(places):
                down, right = row - other_row + window - 1, column - other_column + window - 1
                scores[j] += table[down * (2 * window - 1) + right, head]
                if regions is not None and regions[i] != regions[j]:
                    scores[j] -= 100
            output[i, part] = scores.softmax(0) @ values[:, part]
    return _linear(state, name + ".proj", output)


def _attention(state, name, x, heads, window, shift):
    """x (H, W, C), normalised."""
    height, width, channels = x.shape
    rows = window * math.ceil(height / window)
    columns = window * math.ceil(width / window)
    padded = x.new_zeros(rows, columns, channels)
    padded[:height, :width] = x
    output = torch.zeros_like(padded)
    for top in range(0, rows, window):
        for left in range(0, columns, window):
            # Positions in the shifted map, and where they come from.
            inside = [(i, j) for i in range(window) for j in range(window)]
            shifted = [(top + i, left + j) for i, j in inside]
            source = [((r + shift) % rows, (c + shift) % columns) for r, c in shifted]
            regions = None
            if shift:
                regions = [
                    (_region(r, rows, window, shift), _region(c, columns, window, shift))
                    for r, c in shifted
                ]
            tokens = torch.stack([padded[place] for place in source])
            result = _window_attention(state, name, tokens, inside, regions, heads)
            for place, token in zip(source, result, strict=True):
                output[place] = token
    return output[:height, :width]


def block(state, name, x, heads, window, shift):
    """x (H, W, C) through the block ``name``."""
    x = x + _attention(
        state, name + ".attn", _norm(state, name + ".norm1", x), heads, window, shift
    )
    hidden = F.gelu(_linear(state, name + ".mlp.fc1", _norm(state, name + ".norm2", x)))
    return x + _linear(state, name + ".mlp.fc2", hidden)


def merge(state, name, x):
    """Halve x (H, W, C): the order of the four neighbours is that of the official code."""
    x = F.pad(x, (0, 0, 0, x.shape[1] % 2, 0, x.shape[0] % 2))
    x = torch.cat([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], dim=-1)
    return _linear(state, name + ".reduction", _norm(state, name + ".norm", x))


def backbone(state, image, depths, heads, window):
    """Features res2, res3, ... of one image (3, H, W)."""
    height, width = image.shape[1:]
    image = F.pad(image, (0, -width % 4, 0, -height % 4))
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    x = F.conv2d(image[None], weight, bias, stride=4)[0].permute(1, 2, 0)
    x = _norm(state, "patch_embed.norm", x)
    features = []
    for stage, depth in enumerate(depths):
        for i in range(depth):
            name = f"layers.{stage}.blocks.{i}"
            x = block(state, name, x, heads[stage], window, window // 2 if i % 2 else 0)
        features.append(_norm(state, f"norm{stage}", x).permute(2, 0, 1))
        if stage + 1 < len(depths):
            x = merge(state, f"layers.{stage}.downsample", x)
    return features
