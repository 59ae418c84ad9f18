"""Weighted bilinear samples from several levels: a bag of table rows, without a compiled op.

The four bilinear corners of every sample are rows of one table, and (attention × bilinear)
are their weights, so the whole operation is one ``embedding_bag``. A border of zero rows around
every level stands for everything outside, which removes all inside/outside tests.
"""

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

Sizes = tuple[tuple[int, int], ...]


def sample_levels(
    value: torch.Tensor, sizes: Sizes, place: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Σ over levels and points of ``weight`` × ``value`` at ``place``; zero outside a level.

    value: (N, L, heads, D), the pixels of all levels one after the other.
    sizes: (h, w) of each level, L = Σ h·w.
    place: (N, Q, heads, levels, points, 2) as (x, y) in pixels, whole numbers at pixel centres.
    weight: (N, Q, heads, levels, points).
    Returns (N, Q, heads, D).
    """
    if value.device.type == "cpu" and value.dtype == torch.float32:
        return _BagOfRows.apply(value, place, weight, sizes)
    return sample_levels_by_grid(value, sizes, place, weight)


def sample_levels_by_grid(
    value: torch.Tensor, sizes: Sizes, place: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """The same through ``grid_sample``, whose kernels are fast on GPUs; any dtype."""
    n, q, heads = place.shape[:3]
    out = value.new_zeros(n * heads, value.shape[-1], q)
    for level, part in enumerate(value.split([h * w for h, w in sizes], 1)):
        h, w = sizes[level]
        image = part.permute(0, 2, 3, 1).reshape(n * heads, -1, h, w)
        scale = place.new_tensor([w, h])
        grid = (2 * place[:, :, :, level] + 1) / scale - 1  # (N, Q, heads, points, 2)
        grid = grid.transpose(1, 2).flatten(0, 1).to(value.dtype)
        samples = F.grid_sample(image, grid, align_corners=False)  # (N·heads, D, Q, points)
        share = weight[:, :, :, level].transpose(1, 2).flatten(0, 1)
        out = out + torch.einsum("bdqp,bqp->bdq", samples, share.to(value.dtype))
    return out.unflatten(0, (n, heads)).permute(0, 3, 1, 2)


class _BagOfRows(torch.autograd.Function):
    """Keeps only its inputs for the backward pass and computes the corners a second time."""

    @staticmethod
    def forward(ctx, value, place, weight, sizes):
        ctx.save_for_backward(value, place, weight)
        ctx.sizes = sizes
        table = _bordered_table(value, sizes)
        index, fx, fy = _corners(place, sizes, len(table) // value.shape[0])
        rows = _bag(table, index, _corner_weights(weight, fx, fy))
        return rows.view(*place.shape[:3], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        value, place, weight = ctx.saved_tensors
        table = _bordered_table(value, ctx.sizes)
        index, fx, fy = _corners(place, ctx.sizes, len(table) // value.shape[0])
        grad = grad.reshape(-1, grad.shape[-1]).contiguous()
        dots = _row_dots(table, index, grad).view(*fx.shape, 4)
        grad_place, grad_weight = _sample_gradients(dots, place, weight, fx, fy, ctx.sizes)
        shares = _corner_weights(weight, fx, fy)
        grad_table = _transposed_bag(grad, index, shares, len(table))
        return _without_border(grad_table, value, ctx.sizes), grad_place, grad_weight, None


def _bordered_table(value: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    """(N, L, heads, D) to rows (N · Σ(h+2)(w+2) · heads, D) with a zero border."""
    n, _, heads, dim = value.shape
    table = value.new_zeros(n, _bordered_length(sizes), heads, dim)
    for source, target in _level_pairs(value, table, sizes):
        target.copy_(source)
    return table.view(-1, dim)


def _without_border(grad_table: torch.Tensor, value: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    n, _, heads, dim = value.shape
    out = torch.empty_like(value)
    bordered = grad_table.view(n, _bordered_length(sizes), heads, dim)
    for target, source in _level_pairs(out, bordered, sizes):
        target.copy_(source)
    return out


def _bordered_length(sizes: Sizes) -> int:
    return sum((h + 2) * (w + 2) for h, w in sizes)


def _level_pairs(plain: torch.Tensor, bordered: torch.Tensor, sizes: Sizes):
    """Views (N, h, w, heads, D) of every level in both layouts."""
    start, bordered_start = 0, 0
    for h, w in sizes:
        length, bordered_length = h * w, (h + 2) * (w + 2)
        inner = bordered[:, bordered_start : bordered_start + bordered_length]
        inner = inner.unflatten(1, (h + 2, w + 2))[:, 1:-1, 1:-1]
        yield plain[:, start : start + length].unflatten(1, (h, w)), inner
        start, bordered_start = start + length, bordered_start + bordered_length


def _per_sample(place: torch.Tensor, values: list[int]) -> torch.Tensor:
    """One number per level to one per sample: (heads · levels · points,) int32.

    Arithmetic on such long rows is several times faster than broadcasting over levels.
    """
    heads, levels, points = place.shape[2:5]
    column = torch.tensor(values, dtype=torch.int32, device=place.device).view(levels, 1)
    return column.expand(heads, levels, points).flatten()


def _corners(place: torch.Tensor, sizes: Sizes, rows_per_image: int):
    """Row numbers (N·Q·heads, levels·points·4) and the fractions fx, fy (N, Q, samples)."""
    n, q, heads = place.shape[:3]
    width, height = (_per_sample(place, [size[axis] for size in sizes]) for axis in (1, 0))
    starts = np.cumsum([0] + [(h + 2) * (w + 2) * heads for h, w in sizes])[:-1]
    start = _per_sample(place, starts.tolist()).view(heads, -1)
    start = (start + torch.arange(heads, dtype=torch.int32, device=place.device)[:, None]).flatten()
    # One pixel outside everything is zero, so samples further out are moved there.
    zero = place.new_zeros(())
    x = torch.clamp(place[..., 0].flatten(2) + 1, zero, width + 1.0)
    y = torch.clamp(place[..., 1].flatten(2) + 1, zero, height + 1.0)
    # fmin lets NaN name an existing row; it goes on in the fractions, for the matcher to report.
    x0 = torch.fmin(x.floor(), width.float())
    y0 = torch.fmin(y.floor(), height.float())
    down = (width + 2) * heads
    top = y0.int().mul_(down).add_(x0.int(), alpha=heads).add_(start)  # (N, Q, samples)
    image = torch.arange(n, dtype=torch.int32, device=place.device)
    top.add_(image[:, None, None] * rows_per_image)
    bottom = top + down
    index = torch.stack([top, top + heads, bottom, bottom + heads], -1)
    return index.view(n * q * heads, -1), x.sub_(x0), y.sub_(y0)


def _corner_weights(weight: torch.Tensor, fx: torch.Tensor, fy: torch.Tensor) -> torch.Tensor:
    """Shares of the corners (top left, top right, bottom left, bottom right), one row a bag."""
    bags = weight.shape[:3].numel()
    weight = weight.flatten(2)
    bottom = weight * fy
    top = weight - bottom
    top_right, bottom_right = top * fx, bottom * fx
    corners = [top.sub_(top_right), top_right, bottom.sub_(bottom_right), bottom_right]
    return torch.stack(corners, -1).view(bags, -1)


def _bag(table: torch.Tensor, index: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    return F.embedding_bag(index, table, mode="sum", per_sample_weights=shares)


def _row_dots(table: torch.Tensor, index: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Dot product of every bag's gradient with every row that went into the bag."""
    bags, size = index.shape
    bag = torch.arange(bags, dtype=index.dtype)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad, table, index.reshape(-1), bag * size, bag.repeat_interleave(size), 0
    )


def _sample_gradients(dots, place, weight, fx, fy, sizes):
    """Gradients of place and weight from ``dots`` (N, Q, samples, 4), one a corner."""
    top_left, top_right, bottom_left, bottom_right = dots.unbind(-1)
    left = torch.lerp(top_left, bottom_left, fy)
    across = torch.lerp(top_right, bottom_right, fy).sub_(left)
    down = torch.lerp(bottom_left - top_left, bottom_right - top_right, fx)
    grad_weight = torch.addcmul(left, across, fx).view_as(weight)
    gradient = torch.stack([across, down], -1).view_as(place)
    width, height = (_per_sample(place, [size[axis] for size in sizes]) for axis in (1, 0))
    flat = place.flatten(2)
    inside = (flat > -1) & (flat < torch.stack([width, height], -1).flatten())
    return gradient.mul_(weight.unsqueeze(-1)).mul_(inside.view_as(place)), grad_weight


def _transposed_bag(
    grad: torch.Tensor, index: torch.Tensor, shares: torch.Tensor, rows: int
) -> torch.Tensor:
    """Gradient of the table: the bag with the sparse matrix (bags × rows) transposed."""
    bags, size = index.shape
    starts = np.arange(0, bags * size + 1, size, dtype=np.int32)
    matrix = scipy.sparse.csr_matrix(
        (shares.reshape(-1).numpy(), index.reshape(-1).numpy(), starts), (bags, rows)
    ).tocsc()
    return F.embedding_bag(
        torch.from_numpy(matrix.indices),
        grad,
        torch.from_numpy(matrix.indptr[:-1]),
        mode="sum",
        per_sample_weights=torch.from_numpy(matrix.data),
    )
