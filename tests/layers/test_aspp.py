import pytest
import torch
import torch.nn.functional as F

from mask_transformers.layers.aspp import ASPP


@pytest.fixture
def aspp():
    return ASPP(4, 6, rates=(2, 3)).eval()


@pytest.mark.parametrize("size", [(1, 1), (5, 9)])
def test_sizes_stay(aspp, size):
    assert aspp(torch.randn(2, 4, *size)).shape == (2, 6, *size)


def test_parts_are_joined_in_the_published_order(aspp):
    x = torch.randn(2, 4, 5, 7)
    mean = aspp.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, 5, 7)
    parts = [aspp.point(x), aspp.dilated[0](x), aspp.dilated[1](x), mean]
    torch.testing.assert_close(aspp(x), aspp.out(torch.cat(parts, 1)))


@pytest.mark.parametrize("index", [0, 1])
def test_rates_are_distances_between_samples(aspp, index):
    rate = (2, 3)[index]
    x = torch.zeros(1, 4, 9, 9)
    x[:, :, 4, 4] = 1
    moved = (aspp.dilated[index](x) - aspp.dilated[index](0 * x)).abs().amax((0, 1)) > 1e-7
    steps = [4 - rate, 4, 4 + rate]
    assert moved.nonzero().tolist() == [[row, column] for row in steps for column in steps]


def test_every_pixel_sees_the_mean(aspp):
    x = torch.randn(1, 4, 15, 15)
    changed = x.clone()
    changed[:, :, 0, 0] += 50
    assert ((aspp(x) - aspp(changed)).abs().amax((0, 1)) > 0).all()


def test_training_on_one_image_is_refused_and_on_two_it_is_not(aspp):
    with pytest.raises(ValueError, match=r"two or more images at once \(SOLVER\.IMS_PER_BATCH\)"):
        aspp.train()(torch.randn(1, 4, 5, 7))
    assert F.relu(aspp(torch.randn(2, 4, 5, 7))).isfinite().all()
