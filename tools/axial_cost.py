"""How the cost of axial attention grows: counts, and a fit of what was measured."""

from collections.abc import Sequence

import numpy as np
import scipy.optimize

# Of AxialBlock in res5 of MaX-DeepLab-S, whose width is 512.
CHANNELS, KEY_DEPTH, VALUE_DEPTH, HEADS = 1024, 512, 1024, 8
QKV = 2 * KEY_DEPTH + VALUE_DEPTH


def axial_pairs(side: int) -> int:
    """Pairs of pixels in one column or one row, H·W·(H + W)."""
    return side * side * 2 * side


def projection_flops(side: int) -> int:
    """Multiply-adds of the queries, keys and values of both axes, which grow as H·W."""
    return side * side * (CHANNELS + VALUE_DEPTH) * QKV


def attention_flops(side: int) -> int:
    """Multiply-adds over pairs: three similarities and two sums, by content and by distance."""
    return axial_pairs(side) * (3 * KEY_DEPTH + 2 * VALUE_DEPTH)


def full_map_bytes(side: int) -> int:
    """Bytes of one float32 map of H·W × H·W for every head."""
    return 4 * HEADS * (side * side) ** 2


def fit_cost(sides: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """a and b, not negative, of the ``values`` as a·HW + b·HW·(H+W).

    Least squares of relative errors: in absolute ones the largest map would decide alone.
    ValueError: fewer than two different sizes.
    """
    if len(set(sides)) < 2:
        raise ValueError(f"two or more sizes can be fitted, not {sorted(set(sides))}")
    terms = np.array([[side**2, axial_pairs(side)] for side in sides], dtype=float)
    target = np.array(values, dtype=float)
    scale = terms.max(0)
    solution, _ = scipy.optimize.nnls(terms / scale / target[:, None], np.ones(len(target)))
    a, b = solution / scale
    return float(a), float(b)


def fitted_cost(fit: tuple[float, float], side: int) -> float:
    """What the fit says for a map of ``side``."""
    return fit[0] * side**2 + fit[1] * axial_pairs(side)
