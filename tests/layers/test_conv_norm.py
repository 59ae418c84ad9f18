import faulthandler
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.utils import comm

from mask_transformers.engine import launch
from mask_transformers.layers.conv_norm import (
    ConvNorm,
    LinearNorm,
    SyncNorm,
    resize_aligned,
    resize_corners,
)

LIMIT = 180  # seconds for processes that wait for each other in vain


def _plain_norm():
    return torch.nn.BatchNorm2d(5, eps=1e-3, momentum=0.01)


def test_one_process_has_a_batch_norm_with_the_constants_of_the_authors():
    norm, plain = SyncNorm(5), _plain_norm()
    for _ in range(2):
        x = torch.randn(3, 5, 4, 6) * 2 + 1
        assert torch.equal(norm(x), plain(x))
    assert set(norm.state_dict()) == set(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(norm.state_dict()[name], value), name
    assert torch.equal(norm.eval()(x), plain.eval()(x))


def test_a_line_is_a_map_of_width_one():
    norm, x = SyncNorm(5), torch.randn(3, 5, 8)
    y = norm(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y, _plain_norm()(x[..., None])[..., 0])
    with pytest.raises(ValueError, match=r"lines or maps, not a tensor of \(3, 5\)"):
        norm(x[..., 0])


def _transposed(x):
    """The same values, the second dimension last in memory."""
    return x.flatten(2).movedim(1, 2).contiguous().movedim(2, 1).unflatten(2, x.shape[2:])


@pytest.mark.parametrize("shape", [(3, 5, 8), (3, 5, 8, 1), (3, 5, 4, 6), (1, 5, 4, 1)])
def test_gradients_do_not_depend_on_the_memory_layout(shape):
    norm = SyncNorm(5).double()
    torch.nn.init.uniform_(norm.weight)
    x, probe = torch.randn(2, *shape).double().unbind()
    found = []
    for layout in (torch.clone, _transposed):
        for other in (torch.clone, _transposed):
            leaf = layout(x).requires_grad_()
            found += torch.autograd.grad(norm(leaf), leaf, other(probe))
    assert torch.autograd.gradcheck(norm, x.clone().requires_grad_())
    for gradient in found[1:]:
        torch.testing.assert_close(gradient, found[0])


def test_the_weight_starts_from_the_scale():
    assert SyncNorm(2, 0.1).weight.tolist() == pytest.approx([0.1, 0.1])
    assert not ConvNorm(3, 4, scale=0.0)(torch.randn(2, 3, 5, 5)).any()
    assert not LinearNorm(3, 4, scale=0.0)(torch.randn(2, 3, 5)).any()


def test_a_single_value_teaches_nothing():
    norm = SyncNorm(3)
    with pytest.raises(ValueError, match=r"single value.*SOLVER\.IMS_PER_BATCH"):
        norm(torch.randn(1, 3, 1, 1))
    assert norm.eval()(torch.randn(1, 3, 1, 1)).shape == (1, 3, 1, 1)
    assert norm.train()(torch.randn(1, 3, 1, 2)).isfinite().all()


def _share_of(rank, world, dtype):
    """The images of a process, far from zero, and the weights of a sum of outputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 5, 3, 6, generator=generator) + torch.arange(5.0)[:, None, None] * 8
    probe = torch.randn(4, 5, 3, 6, generator=generator)
    return x[rank::world].to(dtype).requires_grad_(), probe[rank::world]


def write_norms(folder):
    """One process: output, gradients and statistics, in float32 and in half precision."""
    world, rank = comm.get_world_size(), comm.get_rank()
    if world > 1:
        torch.set_num_threads(1)
        faulthandler.dump_traceback_later(LIMIT, exit=True)
    results = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        norm = SyncNorm(5)
        x, probe = _share_of(rank, world, dtype)
        y = norm(x)
        (y.float() * probe).sum().backward()
        results[dtype] = {
            "y": y.detach(),
            "x": x.grad,
            "weight": norm.weight.grad,
            "mean": norm.running_mean,
            "var": norm.running_var,
        }
    torch.save(results, Path(folder, f"{rank}_of_{world}.pth"))


def test_two_processes_share_their_statistics(tmp_path):
    for processes in (1, 2):
        launch(write_norms, processes, args=(str(tmp_path),), device="cpu")
    names = ("0_of_2", "1_of_2", "0_of_1")
    first, second, alone = (torch.load(tmp_path / f"{name}.pth") for name in names)
    for dtype, expected in alone.items():
        one, two = first[dtype], second[dtype]
        close = (
            {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
        )
        for name in ("y", "x"):
            found = torch.stack([one[name], two[name]], 1).flatten(0, 1)
            assert found.dtype == dtype
            torch.testing.assert_close(found.float(), expected[name].float(), **close)
        torch.testing.assert_close(one["weight"] + two["weight"], expected["weight"], **close)
        for name in ("mean", "var"):
            assert torch.equal(one[name], two[name])
            # The variance of a part of all there is is larger by 1/72 in one process.
            torch.testing.assert_close(one[name], expected[name], rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolutions_keep_the_size(kernel, dilation):
    layer = ConvNorm(4, 6, kernel, dilation=dilation, activation=F.relu)
    y = layer(torch.randn(2, 4, 5, 7))
    assert y.shape == (2, 6, 5, 7)
    assert (y >= 0).all()
    assert layer.conv.bias is None
    assert ConvNorm(4, 4, groups=4, bias=True).conv.bias is not None


def test_a_linear_layer_is_the_same_for_every_query():
    layer, x = LinearNorm(4, 6, activation=F.gelu).eval(), torch.randn(2, 4, 7)
    y = layer(x)
    assert y.shape == (2, 6, 7)
    torch.testing.assert_close(layer(x.flip(2)), y.flip(2))


def test_corners_are_aligned_where_the_width_is_odd():
    odd, even = torch.randn(1, 2, 4, 5), torch.randn(1, 2, 5, 4)
    large = resize_aligned(odd, (13, 17))
    torch.testing.assert_close(large[:, :, ::4, ::4], odd)
    expected = F.interpolate(even, size=(13, 17), mode="bilinear", align_corners=False)
    assert torch.equal(resize_aligned(even, (13, 17)), expected)
    assert torch.equal(resize_aligned(even, (5, 4)), even)


@pytest.mark.parametrize("width", [3, 4])
def test_corners_are_aligned_at_any_width(width):
    maps = torch.arange(width * 2.0).view(1, 1, 2, width)
    found = resize_corners(maps, (3, 2 * width - 1))
    assert torch.equal(found[..., ::2, ::2], maps)
    torch.testing.assert_close(found[0, 0, 1, 1], maps.flatten()[[0, 1, width, width + 1]].mean())
