import pytest
import torch
import torch.nn.functional as F

from mask_transformers.layers.normed_attention import NormedAttention

HEADS, KEYS, VALUES = 2, 6, 8


def _attention():
    attention = NormedAttention(HEADS, VALUES)
    for norm in (attention.similarity_norm, attention.output_norm):
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
        torch.nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return attention.double()


def _inputs(images=2, queries=3, length=5):
    query = torch.randn(images, KEYS, queries).double()
    return (
        query,
        torch.randn(images, KEYS, length).double(),
        torch.randn(images, VALUES, length).double(),
    )


def _norm(norm, x, training):
    others = [0, *range(2, x.dim())]
    mean = x.mean(others) if training else norm.running_mean
    var = x.var(others, unbiased=False) if training else norm.running_var
    shape = (1, -1, *[1] * (x.dim() - 2))
    scaled = (x - mean.view(shape)) / (var.view(shape) + 1e-3).sqrt()
    return scaled * norm.weight.view(shape) + norm.bias.view(shape)


@pytest.mark.parametrize("training", [False, True])
def test_attention_of_every_head_with_norms(training):
    attention = _attention().train(training)
    query, key, value = _inputs()
    products = torch.stack(
        [q.transpose(1, 2) @ k for q, k in zip(query.chunk(2, 1), key.chunk(2, 1), strict=True)], 1
    )  # (N, heads, Q, L), without a scale
    weights = _norm(attention.similarity_norm, products, training).softmax(-1)
    seen = [
        v @ w.transpose(1, 2) for v, w in zip(value.chunk(2, 1), weights.unbind(1), strict=True)
    ]
    expected = F.gelu(_norm(attention.output_norm, torch.cat(seen, 1), training))
    # The softmax is computed in float32.
    torch.testing.assert_close(attention(query, key, value), expected, rtol=1e-5, atol=1e-6)


def test_the_order_of_keys_does_not_matter():
    attention, (query, key, value) = _attention().eval(), _inputs()
    found, expected = attention(query, key.flip(2), value.flip(2)), attention(query, key, value)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_batched_equals_single():
    attention, inputs = _attention().eval(), _inputs(3)
    alone = [attention(*(x[i : i + 1] for x in inputs)) for i in range(3)]
    torch.testing.assert_close(attention(*inputs), torch.cat(alone))


def test_autocast():
    attention, inputs = _attention().float().eval(), [x.float() for x in _inputs()]
    exact = attention(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert (attention(*inputs) - exact).norm() < 0.1 * exact.norm()
