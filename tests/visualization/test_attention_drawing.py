import numpy as np
import pytest
from detectron2.data import Metadata

from mask_transformers.visualization.attention import (
    OPACITY,
    UNSEEN_LIGHT,
    cluster_row,
    cluster_segments,
    draw_clusters,
    draw_sight,
    place,
    query_row,
)
from mask_transformers.visualization.overlay import READABLE_SIDE
from mask_transformers.visualization.side_by_side import titled_rows

SIZE = (READABLE_SIDE, 200)  # large enough not to be enlarged
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
PALE = (128 + 255) // 2  # a grey image of 128 behind clusters


@pytest.fixture
def image():
    return np.full((*SIZE, 3), 128, np.uint8)


@pytest.fixture
def metadata():
    names, colors = ["cat", "grass", "sky"], [RED, GREEN, BLUE]
    things = {"thing_classes": names, "thing_colors": colors}
    stuff = {"stuff_classes": names, "stuff_colors": colors}
    return Metadata(name="drawn", **things, **stuff, thing_dataset_id_to_contiguous_id={7: 0})


def over_pale(color):
    return [round(PALE * (1 - OPACITY) + OPACITY * value) for value in color]


def halves(left, right):
    result = np.full(SIZE, left)
    result[:, 100:] = right
    return result


def test_maps_lie_where_the_padded_image_is():
    """Each of 4×4 pixels of a map stands for 8×8 of the image, of which 24×16 are no padding."""
    maps = np.arange(16).reshape(1, 4, 4)
    placed = place(maps, (32, 32), (24, 16), (24, 16))
    assert placed.shape == (1, 24, 16)
    for row, column in ((0, 0), (7, 7), (8, 7), (23, 15)):
        assert placed[0, row, column] == maps[0, row // 8, column // 8]
    halved = place(maps, (32, 32), (24, 16), (12, 8))
    np.testing.assert_array_equal(halved, placed[:, ::2, ::2])


def test_aligned_maps_have_their_pixels_on_those_of_the_image():
    """Pixel k of a map of stride 8 lies on pixel 8·k of an image with 33; halfway is the border."""
    maps = np.arange(5)[:, None].repeat(5, 1)
    rows = place(maps, (33, 33), (33, 33), (33, 33), aligned=True)[:, 0]
    assert rows[[0, 3, 5, 8, 11, 13, 29, 32]].tolist() == [0, 0, 1, 1, 1, 2, 4, 4]
    cut = place(maps, (33, 33), (20, 33), (20, 33), aligned=True)[:, 0]
    np.testing.assert_array_equal(cut, rows[:20])


def test_a_cluster_has_become_the_segment_of_its_class_with_most_of_its_pixels():
    assignment = np.array([[0, 0, 0, 1, 1, 2, 3, 3]])
    ids = np.array([[5, 5, 6, 6, 6, 6, 0, 0]])
    segments = [{"id": 5, "category_id": 1}, {"id": 6, "category_id": 2}]
    # Query 2 is of another class than segment 6, query 3 in none.
    assert cluster_segments(assignment, [1, 2, 1, 1], ids, segments) == {0: 5, 1: 6}
    assert cluster_segments(assignment, [1, 2, 1, 1], 0 * ids, []) == {}


def test_clusters_have_the_colours_of_their_queries(image):
    drawn = draw_clusters(image, halves(4, 2), {4: (1.0, 0.0, 0.0)})
    np.testing.assert_allclose(drawn[5, 5], over_pale(RED), atol=1)
    grey = drawn[5, 150]
    assert grey[0] == grey[1] == grey[2], "of no colour"
    np.testing.assert_array_equal(draw_clusters(image, halves(1, 2), {})[5, 150], grey)
    assert (draw_clusters(image, halves(1, 2), {})[5, 5] != grey).all(), "but told from each other"


def test_a_row_shows_clusters_turn_into_segments(image, metadata):
    """Two clusters of grass are one segment; the third is nothing, and stays grey throughout."""
    first, last = halves(0, 2), halves(0, 1)
    last[200:] = 2
    ids = np.where(last < 2, 1, 0)
    segments = [{"id": 1, "category_id": 1, "isthing": False}]
    row = cluster_row(image, [(first, "a"), (last, "b")], [1, 1, 0], (ids, segments), metadata)
    assert [title for _, title in row] == ["image", "a", "b", "panoptic result"]
    shown, before, after, result = (panel for panel, _ in row)
    np.testing.assert_array_equal(shown, image)
    green = over_pale(GREEN)
    for drawn, (y, x) in ((before, (9, 9)), (after, (9, 9)), (after, (9, 190)), (result, (9, 9))):
        np.testing.assert_allclose(drawn[y, x], green, atol=3)
    np.testing.assert_array_equal(before[9, 190], after[300, 9])
    assert np.ptp(after[300, 9].astype(int)) == 0
    np.testing.assert_allclose(result[300, 9], PALE, atol=3)


def test_things_have_one_colour_each_in_all_panels(image, metadata):
    assignment = halves(0, 1)
    segments = [{"id": i, "category_id": 0, "isthing": True} for i in (1, 2)]
    row = cluster_row(image, [(assignment, "")], [0, 0], (assignment + 1, segments), metadata)
    layer, result = row[1][0], row[2][0]
    assert np.abs(layer[9, 9].astype(int) - layer[9, 190]).max() > 20
    for x in (9, 190):
        np.testing.assert_allclose(layer[9, x], result[9, x], atol=3)


def test_what_is_not_seen_is_dark(image):
    image[...] = 100, 200, 0
    weights = np.zeros(SIZE, np.float32)
    weights[:100], weights[100:200] = 1, 0.5
    drawn = draw_sight(image, weights)
    np.testing.assert_array_equal(drawn[5, 5], [100, 200, 0])
    np.testing.assert_allclose(drawn[300, 5], 100 * UNSEEN_LIGHT, atol=1)
    np.testing.assert_allclose(drawn[150, 5], [62.5, 112.5, 12.5], atol=1)


def test_a_query_ends_with_what_it_found(image, metadata):
    seen = [(np.ones(SIZE), "layer 1")]
    mask = halves(0, 1).astype(bool)
    row = query_row(image, seen, 17, 1, 0.987, metadata, mask=mask)
    assert [title for _, title in row] == ["image", "layer 1", "query 17: grass 99%"]
    np.testing.assert_allclose(row[-1][0][9, 150], over_pale(GREEN), atol=3)
    np.testing.assert_allclose(row[-1][0][9, 9], PALE, atol=3)


def test_a_query_without_a_mask_ends_with_its_box(image, metadata):
    box = np.array([20.0, 60.0, 180.0, 250.0])
    drawn = query_row(image, [], 0, 0, 0.5, metadata, box=box)[-1][0]
    touched = np.abs(drawn.astype(int) - PALE).max(-1) > 9
    assert touched[150, 17:23].any()
    assert touched[150, 177:183].any()
    assert not touched[70:240, 30:170].any()
    assert not touched[260:].any()


def test_rows_of_all_shapes_stand_in_one_picture(image):
    rows = [[(image, "a"), (image, "b")], [(image[:100], "a"), (image[:50, :50], "c")]]
    drawn = titled_rows(rows)
    assert drawn.dtype == np.uint8
    assert drawn.ndim == 3
    assert titled_rows([[row[0]] * 3 for row in rows]).shape[1] > 1.4 * drawn.shape[1]
    same = [
        rows[0],
        [(panel, title) for (panel, _), (_, title) in zip(rows[1], rows[0], strict=True)],
    ]
    assert titled_rows(same).shape[0] < drawn.shape[0], "room only for titles that are new"
    assert titled_rows(rows[:1]).shape[0] < drawn.shape[0]
    grey = (drawn == 128).all(-1)
    assert grey.mean() > 0.6, "panels fill the picture"


@pytest.mark.parametrize("lengths", [(), (0,), (1, 2)])
def test_rows_must_be_of_one_length(image, lengths):
    with pytest.raises(ValueError, match="rows of equal length"):
        titled_rows([[(image, "")] * length for length in lengths])
