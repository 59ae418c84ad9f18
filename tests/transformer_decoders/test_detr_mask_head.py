import pytest
import torch
import torch.nn.functional as F

from mask_transformers.transformer_decoders.detr_mask_head import AttentionMaps, DETRMaskHead

DIM, HEADS = 128, 8
FINE = [(24, 6, 8), (20, 11, 16), (12, 22, 31)]


@pytest.fixture
def head():
    return DETRMaskHead(DIM, HEADS, [channels for channels, *_ in FINE]).eval()


def _inputs(queries=3):
    return (
        torch.randn(queries, DIM),
        torch.randn(DIM, 3, 4),
        torch.randn(DIM, 3, 4),
        [torch.randn(shape) for shape in FINE],
    )


def _by_concatenation(head, queries, projected, memory, fine):
    """The same masks, with the pixels copied for every query."""
    maps = head.attention(queries, memory, None)
    x = torch.cat([projected.expand(len(queries), -1, -1, -1), maps], dim=1)
    for i in range(5):
        if i > 1:
            level = head.adapters[i - 2](fine[i - 2][None])
            x = level + F.interpolate(x, size=level.shape[-2:], mode="nearest")
        x = head.norms[i](head.convs[i](x)).relu()
    return head.out(x).squeeze(1)


def test_masks_by_their_formula(head):
    inputs = _inputs()
    with torch.no_grad():
        found, expected = head(*inputs), _by_concatenation(head, *inputs)
    assert found.shape == (3, 22, 31)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_mask_does_not_depend_on_the_queries_beside_it(head):
    queries, *pixels = _inputs()
    with torch.no_grad():
        together = head(queries, *pixels)
        alone = head(queries[1:2], *pixels)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_no_queries_have_no_masks_and_still_reach_every_parameter(head):
    masks = head(*_inputs(0))
    assert masks.shape == (0, 22, 31)
    masks.sum().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []


def test_attention_is_one_distribution_over_pixels_and_heads_and_not_over_padding():
    maps = AttentionMaps(16, 4)
    inside = torch.tensor([True] * 9 + [False] * 3)
    found = maps(torch.randn(2, 16), torch.randn(16, 3, 4), inside)
    torch.testing.assert_close(found.flatten(1).sum(1), torch.ones(2))
    assert (found.flatten(2)[..., 9:] == 0).all()
    assert (found.flatten(2)[..., :9] > 0).all()


def test_fewer_finer_features_make_a_shorter_pyramid():
    head = DETRMaskHead(64, HEADS, [20, 12])
    masks = head(torch.randn(2, 64), *torch.randn(2, 64, 3, 4), [torch.randn(s) for s in FINE[1:]])
    assert masks.shape == (2, 22, 31)


def test_widths_that_do_not_divide_into_groups():
    with pytest.raises(ValueError, match=r"HIDDEN_DIM 64, 8 heads and 3 .* multiples of 8"):
        DETRMaskHead(64, 8, [8, 8, 8])
