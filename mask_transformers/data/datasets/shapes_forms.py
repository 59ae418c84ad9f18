"""The forms that tell the classes of the shapes data set apart, as functions of coordinates."""

import math

import numpy as np

THINGS = ("circle", "square", "triangle", "star", "ring")
STUFF = ("stripes", "checker", "dots")

# Corners and inner radius (the outer is 1) of shapes bounded by straight lines.
_CORNERS = {"triangle": (3, 0.5), "square": (4, math.sqrt(0.5)), "star": (5, 0.45)}
_RING_HOLE = 0.55


def shape_mask(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where (u, v) is inside the shape ``name`` of area π around the origin."""
    distance = np.hypot(u, v)
    if name in _CORNERS:
        points, inner = _CORNERS[name]
        half = math.pi / points
        # Folded into the wedge between a corner (angle 0) and the next inner vertex (half).
        angle = np.abs((np.arctan2(v, u) + half) % (2 * half) - half)
        sine = inner * math.sin(half)
        edge = sine / (sine * np.cos(angle) + (1 - inner * math.cos(half)) * np.sin(angle))
        return distance < edge * math.sqrt(math.pi / (points * sine))
    if name == "ring":
        outer = 1 / math.sqrt(1 - _RING_HOLE**2)
        return (distance < outer) & (distance > _RING_HOLE * outer)
    return distance < 1


def pattern(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The pattern of a ground class, 0 or 1 at each (u, v); its period is about 1."""
    if name == "stripes":
        return (u % 1 < 0.5).astype(np.float64)
    if name == "checker":
        return (np.floor(u * 1.6) + np.floor(v * 1.6)) % 2
    return (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.32).astype(np.float64)


def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """From the colour ``first`` (3,) to ``second`` (3,) by ``share`` (...): (..., 3)."""
    return first + (second - first) * share[..., None]


def rotate(angle: float, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in axes turned by ``angle`` (radians)."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x + sin * y, cos * y - sin * x
