import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from fvcore.transforms.transform import HFlipTransform, NoOpTransform

from mask_transformers import model_zoo
from mask_transformers.config import add_mask_transformer_config
from mask_transformers.data import build_augmentations
from mask_transformers.data.augmentations import (
    ColorJitter,
    QuarterTurnTransform,
    RandomScale,
    change_colors,
)
from mask_transformers.engine.config_file import merge_config_file


def augment(cfg, image, label=None):
    augmented = T.AugInput(image, sem_seg=label)
    T.AugmentationList(build_augmentations(cfg, is_train=True))(augmented)
    return augmented.image, augmented.sem_seg


@pytest.fixture
def lsj(cfg):
    cfg.INPUT.LSJ.ENABLED, cfg.INPUT.LSJ.IMAGE_SIZE = True, 64
    return cfg


def test_large_scale_jitter_pads_with_void(lsj):
    lsj.INPUT.LSJ.MIN_SCALE = lsj.INPUT.LSJ.MAX_SCALE = 0.5
    image, label = augment(lsj, np.zeros((20, 40, 3), np.uint8), np.zeros((20, 40), np.uint8))
    assert image.shape == (64, 64, 3)
    assert (image[:16, :32] == 0).all()
    assert (image[16:] == 128).all()
    assert (label[:16, :32] == 0).all()
    assert (label[16:] == 255).all()
    assert (label[:, 32:] == 255).all()


def test_large_scale_jitter_crops(lsj):
    lsj.INPUT.LSJ.MIN_SCALE = lsj.INPUT.LSJ.MAX_SCALE = 2.0
    image, label = augment(lsj, np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8))
    assert image.shape == (64, 64, 3)
    assert (label == 0).all()


def test_large_scale_jitter_around_another_shape(lsj):
    lsj.INPUT.LSJ.IMAGE_SHAPE, lsj.INPUT.LSJ.MIN_SCALE, lsj.INPUT.LSJ.MAX_SCALE = [33, 65], 1.0, 1.0
    image, label = augment(lsj, np.zeros((32, 64, 3), np.uint8), np.zeros((32, 64), np.uint8))
    assert image.shape == (33, 65, 3)
    assert (label == 255).sum() <= 65  # 32 × 65 or 33 × 65 pixels of image
    image, _ = augment(lsj, np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8))
    assert (image[:, 33:] == 128).all()
    lsj.INPUT.LSJ.IMAGE_SHAPE = [33]
    with pytest.raises(ValueError, match="IMAGE_SHAPE of two"):
        build_augmentations(lsj, is_train=True)


def test_thin_images_keep_a_pixel():
    image = np.zeros((1, 400, 3), np.uint8)
    resized = RandomScale(0.1, 0.1, 64, 64).get_transform(image).apply_image(image)
    assert resized.shape == (1, 6, 3)


def test_semantic_recipe_pads_to_the_crop(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = (16,), "choice"
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [24, 20]
    image, label = augment(cfg, np.zeros((32, 64, 3), np.uint8), np.zeros((32, 64), np.uint8))
    assert image.shape == (24, 20, 3)
    assert (label[:16] == 0).all()
    assert (label[16:] == 255).all()


def test_category_area_constraint(cfg):
    label = np.zeros((40, 40), np.uint8)
    label[:, 30:] = 1
    image = np.repeat(label[..., None], 3, axis=-1)
    cfg.INPUT.ANNOTATIONS, cfg.INPUT.MIN_SIZE_TRAIN = "semantic", (40,)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"
    cfg.INPUT.CROP.SIZE, cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = [20, 20], 0.9
    np.random.seed(0)
    shares = [(augment(cfg, image, label)[1] == 1).mean() for _ in range(40)]
    assert np.mean([share > 0 for share in shares]) > 0.9  # by chance it is about a half
    cfg.INPUT.ANNOTATIONS = "panoptic"
    with pytest.raises(ValueError, match="SINGLE_CATEGORY_MAX_AREA"):
        build_augmentations(cfg, is_train=True)


def test_flips(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN = (4,)
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, axis=-1)
    for flip, axis in (("horizontal", 1), ("vertical", 0)):
        cfg.INPUT.RANDOM_FLIP = flip
        seen = {augment(cfg, image)[0].tobytes() for _ in range(30)}
        assert seen == {image.tobytes(), np.flip(image, axis).tobytes()}
    cfg.INPUT.RANDOM_FLIP = "diagonal"
    with pytest.raises(ValueError, match=r"INPUT\.RANDOM_FLIP"):
        build_augmentations(cfg, is_train=True)


def test_quarter_turns_and_flips_give_all_eight_positions(cfg):
    cfg.INPUT.RANDOM_ROTATE90, cfg.INPUT.MIN_SIZE_TRAIN = True, (3,)
    image = np.arange(9, dtype=np.uint8).reshape(3, 3, 1).repeat(3, axis=-1)
    np.random.seed(0)
    seen = {augment(cfg, image)[0].tobytes() for _ in range(200)}
    wanted = {np.rot90(i, k).tobytes() for i in (image, image[::-1]) for k in range(4)}
    assert seen == wanted


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_move_points_as_pixels(turns):
    image = np.zeros((5, 8), np.uint8)
    image[1, 6] = 1
    transform = QuarterTurnTransform(5, 8, turns)
    turned = transform.apply_segmentation(image)
    (row,), (column,) = np.nonzero(turned)
    centre = transform.apply_coords(np.array([[6.5, 1.5]]))
    assert centre.tolist() == [[column + 0.5, row + 0.5]]
    assert np.array_equal(transform.inverse().apply_image(turned), image)
    assert transform.inverse().apply_coords(centre).tolist() == [[6.5, 1.5]]


def test_colour_jitter_leaves_labels_alone():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.random.seed(0)
    changed = 0
    for _ in range(20):
        augmented = T.AugInput(image.copy(), sem_seg=label.copy())
        ColorJitter()(augmented)
        assert augmented.image.dtype == np.uint8
        assert np.array_equal(augmented.sem_seg, label)
        changed += not np.array_equal(augmented.image, image)
    assert changed > 10


def test_colour_changes_are_the_ones_named():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    same = {"brightness": 0.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "bgr": False}
    assert np.array_equal(change_colors(red, **same), red)
    assert change_colors(red, **same | {"brightness": 20.0})[0, 0].tolist() == [220, 20, 20]
    assert change_colors(red, **same | {"contrast": 0.5})[0, 0].tolist() == [100, 0, 0]
    assert change_colors(red, **same | {"contrast": 2.0})[0, 0].tolist() == [255, 0, 0]
    grey = change_colors(red, **same | {"saturation": 0.0})[0, 0]
    assert grey.max() - grey.min() == 0
    green = change_colors(red, **same | {"hue": 120.0})[0, 0]
    assert green.argmax() == 1
    # In BGR the same pixel is blue: a third of the circle further it is red, the last channel.
    assert change_colors(red, **same | {"hue": 120.0, "bgr": True})[0, 0].argmax() == 2


@pytest.mark.parametrize(("low", "high", "side"), [(0.0, 1.0, 64), (2.0, 1.0, 64), (0.1, 1.0, 0)])
def test_impossible_jitter_is_refused(lsj, low, high, side):
    lsj.INPUT.LSJ.MIN_SCALE, lsj.INPUT.LSJ.MAX_SCALE = low, high
    lsj.INPUT.LSJ.IMAGE_SIZE = side
    with pytest.raises(ValueError, match=r"INPUT\.LSJ"):
        build_augmentations(lsj, is_train=True)


def test_colour_jitter_refuses_other_formats(lsj):
    lsj.INPUT.COLOR_JITTER, lsj.INPUT.FORMAT = True, "L"
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT"):
        build_augmentations(lsj, is_train=True)


@pytest.fixture(scope="module")
def published():
    """The INPUT keys of configs/detr."""
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    path = model_zoo.config_file("maskformer_R50_coco_panoptic").parents[1]
    merge_config_file(cfg, str(path / "detr" / "Base-DETR-Augmentation.yaml"))
    return cfg


def draw(cfg, height, width):
    """The transforms drawn for an image, without flips; the last one is the resize of all."""
    image = T.AugInput(np.zeros((height, width, 1), np.uint8))
    drawn = T.AugmentationList(build_augmentations(cfg, is_train=True))(image).transforms
    flips = (NoOpTransform, HFlipTransform)
    *crop, resize = [transform for transform in drawn if not isinstance(transform, flips)]
    assert image.image.shape[:2] == (resize.new_h, resize.new_w)
    return crop, resize


@pytest.mark.parametrize("size", [(100, 150), (427, 640), (60, 240)])
def test_the_published_recipe_of_detr(published, size):
    np.random.seed(0)
    crops = []
    for _ in range(60):
        crop, resize = draw(published, *size)
        short, long = sorted((resize.new_h, resize.new_w))
        assert long <= 1333
        assert short in range(480, 801, 32) or long == 1333
        crops += [crop] if crop else []
    assert 15 < len(crops) < 45
    for first, crop in crops:
        assert min(first.new_h, first.new_w) in (400, 500, 600)
        assert max(first.new_h, first.new_w) == round(
            min(first.new_h, first.new_w) * max(size) / min(size)
        )
        assert 384 <= crop.h <= min(first.new_h, 600)
        assert 384 <= crop.w <= min(first.new_w, 600)
    assert len({(crop.h, crop.w) for _, crop in crops}) > 15  # each side drawn for itself
    assert {min(first.new_h, first.new_w) for first, _ in crops} == {400, 500, 600}


def test_the_published_recipe_of_detr_flips_first_and_tests_whole_images(published):
    flip = build_augmentations(published, is_train=True)[0]
    assert isinstance(flip, T.RandomFlip)
    assert (flip.horizontal, flip.prob) == (True, 0.5)
    [resize] = build_augmentations(published, is_train=False)
    assert (resize.short_edge_length, resize.max_size) == ((800, 800), 1333)


def test_crop_before_the_resize_is_that_of_detr(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (64,), 1000
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.BEFORE_RESIZE = True, True
    cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = "absolute_range", (200, 300)
    rows = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None], (100, 150))
    image = np.repeat(rows[..., None], 3, axis=-1)
    ranges, shapes = [], []
    for _ in range(40):
        augmented, label = augment(cfg, image, rows.copy())
        assert augmented.shape[:2] == label.shape
        assert min(label.shape) == 64  # the resize has the last word
        ranges.append(int(label.max()) - int(label.min()))
        shapes.append(label.shape)
    whole = [shape for shape, extent in zip(shapes, ranges, strict=True) if extent > 95]
    assert 8 < len(whole) < 32  # half of the images are not cropped
    assert set(whole) == {(64, 96)}
    # 200 to 300 of 400 to 600 pixels.
    assert all(30 <= extent <= 76 for extent in ranges if extent <= 95)
