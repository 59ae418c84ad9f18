"""What is drawn of each system is what its layers did."""

from types import SimpleNamespace

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mask_transformers.prediction import attention_rows as module
from mask_transformers.prediction.attention_rows import SYSTEMS, attention_rows, rows_of_system
from mask_transformers.visualization.overlay import READABLE_SIDE

SHOWN = (64, 96)  # height, width: small enough to be shown as it is
TEST = "MODEL.MASK_TRANSFORMER.TEST"
ALL_SEGMENTS = {f"{TEST}.{name}_THRESHOLD": 0.0 for name in ("THING", "STUFF", "PIXEL", "OVERLAP")}
ALL_SEGMENTS |= {f"{TEST}.{name}_AREA": 0.0 for name in ("THING", "STUFF")}
MAX = [f"max_deeplab_{size}_coco_panoptic" for size in "SL"]


@pytest.fixture
def predictor(tiny_model):
    """Function (name, keys) → a miniature in inference, as in Detectron2's DefaultPredictor."""

    def make(name, keys=None, side=64):
        model = tiny_model(name, keys).eval()
        return SimpleNamespace(
            model=model, input_format="RGB", aug=T.ResizeShortestEdge([side, side], 1000)
        )

    return make


@pytest.fixture
def bgr():
    return np.random.default_rng(0).integers(0, 256, (*SHOWN, 3), dtype=np.uint8)


@pytest.fixture
def drawn_layers(monkeypatch):
    """The arguments of every row that is drawn, by the name of the function."""
    calls = []
    for name in ("query_row", "cluster_row"):
        draw = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, draw=draw, **k: calls.append((a, k)) or draw(*a, **k)
        )
    return calls


def as_seen(model, bgr):
    """The image as the model is given it: (1, 3, H, W)."""
    rgb = torch.from_numpy(np.ascontiguousarray(bgr[:, :, ::-1].transpose(2, 0, 1))).float()
    return model.prepare_images([{"image": rgb}]).tensor


def test_masks_of_mask2former_are_the_previous_prediction(predictor, bgr, drawn_layers):
    tiny = predictor("mask2former_R50_coco_panoptic")
    rows = attention_rows(tiny, bgr, queries=2)
    assert [len(row) for row in rows] == [5, 5]
    titles = [title for _, title in rows[0][1:-1]]
    assert titles == ["layer 1, stride 32", "layer 2, stride 16", "layer 3, stride 8"]
    with torch.no_grad():
        outputs = tiny.model.raw_outputs(as_seen(tiny.model, bgr))
    scores = outputs["pred_logits"][0].softmax(-1)[:, :-1].amax(-1)
    for (args, found), query in zip(drawn_layers, scores.argsort(descending=True), strict=False):
        assert args[2] == query
        assert args[4] == pytest.approx(float(scores[query]), abs=1e-5)
        for (weights, _), earlier, stride in zip(
            args[1], outputs["aux_outputs"], (32, 16, 8), strict=True
        ):
            mask = outputs["pixel_features"].predict_masks(earlier["mask_embeddings"])[:, query]
            size = (SHOWN[0] // stride, SHOWN[1] // stride)
            seen = F.interpolate(mask[None], size, mode="bilinear")[0, 0].sigmoid() >= 0.5
            seen = seen if seen.any() else torch.ones(size, dtype=bool)
            expected = seen.numpy().repeat(stride, 0).repeat(stride, 1)
            np.testing.assert_array_equal(weights, expected)
        assert found["mask"].shape == SHOWN


def test_mask2former_without_masks_looks_everywhere(predictor, bgr, drawn_layers):
    tiny = predictor(
        "mask2former_R50_coco_panoptic",
        {"MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.MASKED": False},
    )
    attention_rows(tiny, bgr, queries=1)
    ((args, _),) = drawn_layers
    assert len(args[1]) == 3
    assert all((weights == 1).all() for weights, _ in args[1])


def test_more_queries_than_there_are(predictor, bgr):
    assert len(attention_rows(predictor("mask2former_R50_coco_panoptic"), bgr, queries=99)) == 7


def test_clusters_of_kmax_are_the_largest_masks(predictor, bgr, drawn_layers):
    tiny = predictor("kmax_R50_coco_panoptic", ALL_SEGMENTS)
    (row,) = attention_rows(tiny, bgr)
    titles = ["layer 1, stride 32", "layer 2, stride 16", "layer 3, stride 8"]
    titles = ["image", *titles, "last masks, stride 4", "panoptic result"]
    assert [title for _, title in row] == titles
    ((args, _),) = drawn_layers
    with torch.no_grad():
        outputs = tiny.model.raw_outputs(as_seen(tiny.model, bgr))
    for (clusters, _), layer in zip(args[1], [*outputs["aux_outputs"], outputs], strict=True):
        own = layer["pred_masks"][0].argmax(0).numpy()
        assert clusters.shape == SHOWN
        stride = {3: 32, 5: 16, 9: 8, 17: 4}[own.shape[0]]
        grid = clusters[::stride, ::stride]
        np.testing.assert_array_equal(grid, own[: grid.shape[0], : grid.shape[1]])
    ids, segments = args[3]
    assert segments, "a picture without segments would test nothing"
    assert ids.shape == SHOWN


def test_clusters_lie_where_the_masks_of_the_result_do(predictor, bgr, drawn_layers):
    """ConvNeXt has even maps, 16, 8, 4 and 2 pixels wide, which are enlarged by their borders."""
    tiny = predictor("kmax_convnext_tiny_coco_panoptic", ALL_SEGMENTS, side=65)
    attention_rows(tiny, np.resize(bgr, (65, 65, 3)))
    ((args, _),) = drawn_layers
    with torch.no_grad():
        outputs = tiny.model.raw_outputs(as_seen(tiny.model, np.resize(bgr, (65, 65, 3))))
    sides = []
    for (clusters, _), layer in zip(args[1], [*outputs["aux_outputs"], outputs], strict=True):
        own = layer["pred_masks"][0].argmax(0)
        sides.append(len(own))
        nearest = F.interpolate(own[None, None].float(), (65, 65), mode="nearest-exact")[0, 0]
        np.testing.assert_array_equal(clusters, nearest.numpy())
    assert sides == [2, 4, 8, 16]


@pytest.mark.parametrize("mask_wise", [False, True])
@pytest.mark.parametrize("name", MAX)
def test_slots_of_max_deeplab_have_masks_once(predictor, bgr, drawn_layers, name, mask_wise):
    tiny = predictor(name, {**ALL_SEGMENTS, f"{TEST}.MASK_WISE": mask_wise})
    (row,) = attention_rows(tiny, bgr)
    assert [title for _, title in row] == ["image", "masks, stride 4", "panoptic result"]
    ((args, _),) = drawn_layers
    with torch.no_grad():
        masks = tiny.model.raw_outputs(as_seen(tiny.model, bgr))["pred_masks"][0]
    assert masks.shape[1:] == (17, 25)  # 65 × 97 pixels, with their corners on those of the map
    [(slots, _)] = args[1]
    np.testing.assert_array_equal(slots[::4, ::4], masks.argmax(0)[:16, :24])
    ids, segments = args[3]
    assert segments, "a picture without segments would test nothing"
    assert ids.shape == SHOWN


@pytest.mark.parametrize("name", ["kmax_R50_coco_panoptic", MAX[0]])
def test_clusters_need_the_panoptic_result(predictor, bgr, name):
    with pytest.raises(ValueError, match=r"TEST\.TASKS must hold"):
        attention_rows(predictor(name, {f"{TEST}.TASKS": ["semantic"]}), bgr)


def test_attention_of_detr_is_scaled(predictor, bgr, drawn_layers):
    rows = attention_rows(predictor("detr_R50_coco"), bgr, queries=3)
    assert len(rows) == 3
    for args, found in drawn_layers:
        assert [title for _, title in args[1]] == [f"layer {i}, stride 32" for i in (1, 2, 3)]
        for weights, _ in args[1]:
            assert weights.shape == SHOWN
            assert weights.min() > 0
            assert weights.max() == 1
        assert found["box"].shape == (4,)


def test_large_images_are_shown_small(predictor):
    large = np.zeros((2 * READABLE_SIDE, READABLE_SIDE, 3), np.uint8)
    ((shown, _), *layers), *_ = attention_rows(predictor("mask2former_R50_coco_panoptic"), large)
    assert shown.shape == (READABLE_SIDE, READABLE_SIDE // 2, 3)
    assert {panel.shape for panel, _ in layers} == {shown.shape}


@pytest.mark.parametrize("name", ["MaskFormer", "PerPixelBaseline"])
def test_other_systems_are_refused(name):
    with pytest.raises(ValueError, match=f"'{name}'.*drawn is that of {', '.join(SYSTEMS)}"):
        rows_of_system(name)


def test_a_model_is_left_as_it_was(predictor, bgr):
    tiny = predictor("mask2former_R50_coco_panoptic")
    attention_rows(tiny, bgr)
    assert not any(module._forward_pre_hooks for module in tiny.model.modules())
