"""Pictures of what the layers of a decoder look at: clusters of pixels, or the sight of a query.

All images are RGB uint8 (H, W, 3). Maps are drawn pixel by pixel as a layer has them, not smoothed.
"""

from collections.abc import Sequence

import numpy as np
from detectron2.data import Metadata

from ..data.boxes import clip_boxes
from .overlay import Color, complete_metadata, enlarge, overlay_on
from .side_by_side import Panel

Layer = tuple[np.ndarray, str]  # a map (H, W) and its title
Size = tuple[int, int]  # height, width

OPACITY = 0.8
UNSEEN_LIGHT = 0.25  # of what a query does not look at


def place(
    maps: np.ndarray, padded: Size, image: Size, output: Size, aligned: bool = False
) -> np.ndarray:
    """Maps (..., h, w) of a ``padded`` image, to (..., *output), by the nearest pixel.

    The map is cut to the ``image``, whose padding is at its right and bottom, and that is resized
    to the ``output``. ``aligned``: the corner pixels of map and padded image lie on another, as in
    MaX- and kMaX-DeepLab with maps of an odd width; else the borders do.
    """
    sizes = zip(maps.shape[-2:], padded, image, output, strict=True)
    rows, columns = (_nearest(*size, aligned) for size in sizes)
    return maps[..., rows[:, None], columns]


def _nearest(grid: int, padded: int, image: int, output: int, aligned: bool) -> np.ndarray:
    centers = (np.arange(output) + 0.5) * image / output  # in pixels of the padded image
    if aligned:
        return np.rint((centers - 0.5) * (grid - 1) / max(padded - 1, 1)).clip(0).astype(int)
    return (centers * grid / padded).astype(int)


def segment_colors(
    image: np.ndarray, segments: Sequence[dict], metadata: Metadata
) -> dict[int, Color]:
    """Segment id → its colour (0..1): stuff as in the metadata, things near that of their class."""
    overlay, _ = overlay_on(image, image.shape[:2], metadata)
    return {
        s["id"]: overlay.instance_color(s["category_id"])
        if s["isthing"]
        else _unit(metadata.stuff_colors[s["category_id"]])
        for s in segments
    }


def cluster_segments(
    assignment: np.ndarray, classes: Sequence[int], ids: np.ndarray, segments: Sequence[dict]
) -> dict[int, int]:
    """Query → the id of the segment that its cluster has become, if it has become one.

    assignment (H, W): the query of each pixel at last; classes (Q,); ids (H, W) of the segments.
    That is the segment with most of the pixels of the query, if both are of one class. Pixels
    outside all segments, which were too unsure for one, do not count.
    """
    known = {s["id"]: s["category_id"] for s in segments}
    inside = np.isin(ids, list(known))
    found = {}
    for query in np.unique(assignment[inside]).tolist():
        members, counts = np.unique(ids[inside & (assignment == query)], return_counts=True)
        most = int(members[counts.argmax()])
        if known[most] == classes[query]:
            found[query] = most
    return found


def draw_clusters(
    image: np.ndarray, assignment: np.ndarray, colors: dict[int, Color]
) -> np.ndarray:
    """Every pixel in the colour of its query ``assignment`` (H, W), over a pale image.

    Queries without one of the ``colors`` (0..1) get a grey that is always the same.
    """
    queries = range(int(assignment.max()) + 1)
    table = np.array([colors.get(query, _grey(query)) for query in queries])
    return _blend(_pale(image), 255 * table[assignment], OPACITY)


def draw_sight(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The image where ``weights`` (H, W) are 1, dark and grey where they are 0, and between."""
    return _blend(UNSEEN_LIGHT * _grey_image(image), image, weights[..., None])


def draw_segments(
    image: np.ndarray,
    ids: np.ndarray,
    segments: Sequence[dict],
    metadata: Metadata,
    colors: dict[int, Color],
) -> np.ndarray:
    """Segments with their names over a pale image, each in its colour of ``colors``."""
    visualizer, factor = overlay_on(_pale(image), ids.shape, metadata)
    masks = [enlarge((ids == s["id"]).astype(np.uint8), factor) for s in segments]
    names = [metadata.stuff_classes[s["category_id"]] for s in segments]
    chosen = [colors[s["id"]] for s in segments]
    visualizer.overlay_instances(masks=masks, labels=names, assigned_colors=chosen, alpha=OPACITY)
    return visualizer.output.get_image()


def cluster_row(
    image: np.ndarray,
    layers: Sequence[Layer],
    classes: Sequence[int],
    panoptic: tuple[np.ndarray, Sequence[dict]],
    metadata: Metadata | None = None,
) -> list[Panel]:
    """The image, the clusters of each layer, and the segments that they have become.

    layers: the query of each pixel (H, W) and a title, the last one last; classes (Q,);
    ``panoptic``: ids (H, W) and segments.
    """
    ids, segments = panoptic
    known = complete_metadata(metadata, max([*classes, *(s["category_id"] for s in segments)]) + 1)
    colors = segment_colors(image, segments, known)
    became = cluster_segments(layers[-1][0], classes, ids, segments)
    of_query = {query: colors[segment] for query, segment in became.items()}
    row = [(image, "image")]
    row += [(draw_clusters(image, assignment, of_query), title) for assignment, title in layers]
    return [*row, (draw_segments(image, ids, segments, known, colors), "panoptic result")]


def query_row(
    image: np.ndarray,
    layers: Sequence[Layer],
    query: int,
    label: int,
    score: float,
    metadata: Metadata | None = None,
    mask: np.ndarray | None = None,
    box: np.ndarray | None = None,
) -> list[Panel]:
    """The image, what a query sees of it in each layer, and what it finds, over a pale image.

    layers: weights (H, W) in 0..1 and a title; the query finds a ``mask`` (H, W) bool or a ``box``
    (4,), x0 y0 x1 y1 in pixels.
    """
    known = complete_metadata(metadata, label + 1)
    overlay, factor = overlay_on(_pale(image), image.shape[:2], known)
    color = [_unit(known.thing_colors[label])]
    if mask is not None:
        masks = [enlarge(mask.astype(np.uint8), factor)]
        overlay.overlay_instances(masks=masks, assigned_colors=color, alpha=OPACITY)
    if box is not None:
        inside = clip_boxes(box[None], image.shape[:2])
        overlay.overlay_instances(boxes=inside * factor, assigned_colors=color)
    seen = [(draw_sight(image, weights), title) for weights, title in layers]
    title = f"query {query}: {known.thing_classes[label]} {score:.0%}"
    return [(image, "image"), *seen, (overlay.output.get_image(), title)]


def _unit(color: Sequence[float]) -> Color:
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def _grey(query: int) -> Color:
    """Neighbours in number are far apart, so that clusters can be told from each other."""
    lightness = 0.3 + 0.5 * (query * 0.618034 % 1)
    return lightness, lightness, lightness


def _grey_image(image: np.ndarray) -> np.ndarray:
    return image.mean(-1, keepdims=True).repeat(3, -1)


def _pale(image: np.ndarray) -> np.ndarray:
    return ((_grey_image(image) + 255) / 2).round().astype(np.uint8)


def _blend(below: np.ndarray, above: np.ndarray, opacity: float | np.ndarray) -> np.ndarray:
    return (below * (1 - opacity) + above * opacity).round().astype(np.uint8)
