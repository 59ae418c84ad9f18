import pytest
import torch
import torch.nn.functional as F

from mask_transformers.meta_arch.base import MaskTransformer, in_fast_layout, resize_to_output


@pytest.fixture
def base():
    return MaskTransformer(pixel_mean=[10, 20, 30], pixel_std=[1, 2, 4], size_divisibility=32)


def test_images_are_normalised_and_padded_right_and_bottom(base):
    image = torch.full((3, 40, 33), 50.0)
    images = base.prepare_images([{"image": image.byte()}, {"image": image[:, :10, :10]}])
    assert images.tensor.shape == (2, 3, 64, 64)
    assert [tuple(size) for size in images.image_sizes] == [(40, 33), (10, 10)]
    assert images.tensor[0, :, 39, 32].tolist() == [40, 15, 5]
    assert not images.tensor[0, :, 40:].any()
    assert not images.tensor[1, :, :, 10:].any()


def test_targets_are_padded_by_background(base, make_record):
    record = make_record(count=3, size=(20, 30))
    [target] = base.prepare_targets([record], (32, 64))
    assert target.masks.shape == (3, 32, 64)
    assert target.masks.dtype == torch.bool
    assert torch.equal(target.masks[:, :20, :30], record["instances"].gt_masks.tensor)
    assert not target.masks[:, 20:].any()
    assert not target.masks[:, :, 30:].any()
    assert target.name == "some/image.png"


def test_a_record_without_instances_is_named(base):
    with pytest.raises(KeyError, match=r"a\.png has no 'instances'"):
        base.prepare_targets([{"file_name": "a.png"}], (8, 8))


def test_masks_are_cut_to_the_image_before_they_are_resized():
    masks = torch.randn(2, 8, 8)
    whole = F.interpolate(masks[None], size=(32, 32), mode="bilinear", align_corners=False)
    cut = resize_to_output(masks, (32, 32), (20, 30), (20, 30))
    torch.testing.assert_close(cut, whole[0, :, :20, :30])
    resized = resize_to_output(masks, (32, 32), (20, 30), (40, 60))
    expected = F.interpolate(cut[None], size=(40, 60), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized, expected[0])


def test_no_masks_are_resized_too():
    assert resize_to_output(torch.zeros(0, 8, 8), (32, 32), (20, 30), (5, 6)).shape == (0, 5, 6)


def test_channels_come_last_at_inference_alone():
    images = torch.randn(2, 3, 8, 6)
    assert in_fast_layout(images) is images  # training
    with torch.no_grad():
        fast = in_fast_layout(images)
        assert torch.equal(fast, images)
        assert fast.is_contiguous(memory_format=torch.channels_last)
        assert in_fast_layout(torch.empty(2, 3, 8, 6, device="meta")).is_contiguous()


SYSTEMS = [
    "kmax_R50_coco_panoptic",
    "detr_small_shapes_panoptic",
    "mask2former_R50_coco_panoptic",
    "maskformer_R50_coco_panoptic",
    "perpixel_baseline_plus_R50_ade20k_semantic",
]


@pytest.mark.parametrize("name", SYSTEMS)
def test_an_image_has_the_same_results_in_every_batch(tiny_model, make_record, name):
    model = tiny_model(name).eval()
    # The first two have one padded size where images are padded to multiples of 32.
    records = [make_record(size=size) for size in ((40, 60), (64, 64), (90, 33), (40, 60))]
    with torch.no_grad():
        together = model(records)
        alone = [model([record])[0] for record in records]
    for one, other in zip(together, alone, strict=True):
        _assert_same_results(one, other)


def _assert_same_results(one, other):
    assert set(one) == set(other)
    if "panoptic_seg" in one:
        assert one["panoptic_seg"][1] == other["panoptic_seg"][1]
        assert torch.equal(one["panoptic_seg"][0], other["panoptic_seg"][0])
    if "sem_seg" in one:
        torch.testing.assert_close(one["sem_seg"], other["sem_seg"], rtol=1e-4, atol=1e-5)
    if "instances" in one:
        found, expected = one["instances"], other["instances"]
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
        boxes = (found.pred_boxes.tensor, expected.pred_boxes.tensor)
        torch.testing.assert_close(*boxes, rtol=1e-4, atol=1e-3)
        masks = [getattr(instances, "pred_masks", None) for instances in (found, expected)]
        assert (masks[0] is None) == (masks[1] is None)
        if masks[0] is not None and len(masks[0]):
            assert masks[0].shape == masks[1].shape
            assert (masks[0] == masks[1]).float().mean((1, 2)).min() > 0.99
