import pytest
import torch

from mask_transformers.layers.conv_norm import resize_aligned
from mask_transformers.losses.segments import partition


def _stripes(height=5, width=7):
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, :, :3] = True
    masks[1, 1:4, 2:5] = True  # shares a column with the first
    return masks


def test_each_pixel_has_the_first_target_that_claims_it():
    masks = _stripes()
    segments = partition(masks, (5, 7))
    for pixel, owner in enumerate(segments.owner.tolist()):
        claims = masks.flatten(1)[:, pixel].nonzero().flatten().tolist()
        assert owner == (claims[0] if claims else 2)
    assert segments.areas.tolist() == [15, 6]
    assert segments.inside.tolist() == (segments.owner < 2).nonzero().flatten().tolist()
    assert torch.equal(segments.membership.argmax(1), segments.owner)


def test_odd_sizes_take_every_fourth_pixel():
    masks = torch.rand(3, 41, 57) > 0.5
    expected = partition(masks[:, ::4, ::4].contiguous(), (11, 15)).owner
    assert torch.equal(partition(masks, (11, 15)).owner, expected)


def test_even_sizes_take_the_pixel_at_the_centre_of_a_cell():
    masks = torch.rand(3, 40, 56) > 0.5
    expected = partition(masks[:, 2::4, 2::4].contiguous(), (10, 14)).owner
    assert torch.equal(partition(masks, (10, 14)).owner, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (90, 33)])
def test_grids_of_one_pixel_and_grids_finer_than_the_image(size):
    segments = partition(_stripes(), size)
    assert segments.owner.shape == (size[0] * size[1],)
    assert int(segments.owner.max()) <= 2


def test_an_image_without_targets_is_void():
    segments = partition(torch.zeros(0, 6, 6, dtype=torch.bool), (3, 3))
    assert segments.owner.tolist() == [0] * 9
    assert len(segments.areas) == len(segments.inside) == 0
    assert segments.overlap(torch.ones(4, 9)).tolist() == [[9.0]] * 4


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_counts_pixels_in_background_but_not_in_void(smooth, background):
    masks = _stripes()
    segments, found = partition(masks, (5, 7), background), torch.rand(4, 35)
    dice = segments.dice(segments.overlap(found), smooth)
    inside = masks.any(0).flatten() | background
    for query in range(4):
        for target in range(2):
            wanted = segments.owner == target
            size = found[query, inside].sum() + wanted.sum()
            expected = (2 * found[query, wanted].sum() + smooth) / (size + smooth)
            torch.testing.assert_close(dice[query, target], expected)


@pytest.mark.parametrize(
    ("image", "grid"), [((33, 65), (9, 17)), ((33, 65), (8, 16)), ((32, 64), (8, 16))]
)
def test_targets_lie_where_predictions_are_enlarged_to(image, grid):
    """Grids of ResNets (4k + 1 pixels: k + 1) and of ConvNeXts (k), and of even images."""
    columns = torch.eye(image[1], dtype=torch.bool)[:, None].expand(-1, image[0], -1)
    taken = partition(columns, grid).owner.view(grid)[0]  # column of the image for each of the grid
    ramp = torch.arange(float(grid[1]))
    large = resize_aligned(ramp.expand(1, 1, *grid), image)[0, 0, 0]
    difference = (large[taken] - ramp).abs()[1:-1]  # edges are repeated
    assert difference.max() <= 0.126  # half a pixel of the image
