import numpy as np
import pytest
import torch

from mask_transformers.losses.set_criterion import PointSetCriterion
from mask_transformers.structures import Targets

QUERIES, CLASSES, DIM = 6, 4, 8


def _inputs(layers=2, images=2, counts=(2, 1), size=(24, 32)):
    features = torch.randn(images, DIM, 6, 8, requires_grad=True)
    predictions = [
        (
            torch.randn(images, QUERIES, CLASSES + 1, requires_grad=True),
            torch.randn(images, QUERIES, DIM, requires_grad=True),
        )
        for _ in range(layers)
    ]
    targets = [
        Targets(torch.arange(n) % CLASSES, torch.rand(n, *size) > 0.5, f"image {i}")
        for i, n in enumerate(counts)
    ]
    return predictions, features, targets


def _criterion(**arguments):
    return PointSetCriterion(**{"num_classes": CLASSES, "points": 50, **arguments})


def test_every_layer_has_three_losses_and_the_last_no_suffix():
    losses = _criterion()(*_inputs(layers=3))
    expected = {f"loss_{k}{s}" for k in ("ce", "mask", "dice") for s in ("", "_0", "_1")}
    assert set(losses) == expected
    assert all(torch.isfinite(value) for value in losses.values())


def test_without_deep_supervision_only_the_last_layer_counts():
    inputs = _inputs()
    losses = _criterion(deep_supervision=False)(*inputs)
    assert set(losses) == {"loss_ce", "loss_mask", "loss_dice"}
    sum(losses.values()).backward()
    assert inputs[0][0][1].grad is None
    assert inputs[0][1][1].grad.abs().sum() > 0


def test_weights_are_applied_once():
    inputs = _inputs(layers=1)
    torch.manual_seed(1)
    plain = _criterion(class_weight=1, mask_weight=1, dice_weight=1)(*inputs)
    torch.manual_seed(1)
    doubled = _criterion(class_weight=2, mask_weight=2, dice_weight=2)(*inputs)
    for name, value in plain.items():
        torch.testing.assert_close(doubled[name], 2 * value)


def test_a_perfect_prediction_is_matched_and_costs_nearly_nothing():
    masks = torch.zeros(2, 24, 32, dtype=torch.bool)
    masks[0, :12], masks[1, 12:, 16:] = True, True
    features = torch.nn.functional.interpolate(masks[None].float(), size=(6, 8)) * 40 - 20
    logits, embeds = torch.zeros(1, 3, CLASSES + 1), torch.zeros(1, 3, 2)
    logits[..., -1] = 20
    for query, target in ((2, 0), (0, 1)):
        logits[0, query] = 0
        logits[0, query, target] = 20
        embeds[0, query, target] = 1
    criterion = _criterion()
    targets = [Targets(torch.arange(2), masks)]
    prediction = [(logits, embeds)]
    [[(queries, chosen)]] = criterion.match(prediction, features, targets)
    assert queries.tolist() == [0, 2]
    assert chosen.tolist() == [1, 0]
    criterion.loss_points = lambda masks: _cell_centres(6, 8).expand(len(masks), -1, -1)
    assert sum(criterion(prediction, features, targets).values()) < 1e-3


def _cell_centres(height, width):
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid_x, grid_y], -1).view(1, -1, 2)


@pytest.mark.parametrize("counts", [(0, 0), (0, 3)])
def test_images_without_targets_train_and_reach_every_tensor(counts):
    inputs = _inputs(counts=counts)
    losses = _criterion()(*inputs)
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    for logits, embeds in inputs[0]:
        assert logits.grad.abs().sum() > 0
        assert embeds.grad is not None
    assert inputs[1].grad is not None
    if not sum(counts):
        assert losses["loss_mask"] == losses["loss_dice"] == 0


def test_without_targets_the_class_loss_asks_for_no_object():
    predictions, features, targets = _inputs(layers=1, counts=(0, 0))
    no_object = predictions[0][0].log_softmax(-1)[..., -1]
    losses = _criterion(class_weight=1.0)(predictions, features, targets)
    torch.testing.assert_close(losses["loss_ce"], -no_object.mean())


def test_more_targets_than_queries_leave_the_worst_unmatched():
    predictions, features, targets = _inputs(counts=(QUERIES + 5, 1))
    criterion = _criterion()
    for layer in criterion.match(predictions, features, targets):
        queries, chosen = layer[0]
        assert queries.tolist() == list(range(QUERIES))
        assert len(set(chosen.tolist())) == QUERIES
    losses = criterion(predictions, features, targets)
    assert all(torch.isfinite(value) for value in losses.values())


def test_single_pixel_and_full_masks_train():
    predictions, features, targets = _inputs(counts=(2, 1))
    targets[0].masks[:] = False
    targets[0].masks[0, 3, 5] = True
    targets[0].masks[1] = True
    losses = _criterion()(predictions, features, targets)
    sum(losses.values()).backward()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["logits", "embedding", "features"])
def test_predictions_that_are_not_finite_name_the_image(value, where):
    predictions, features, targets = _inputs()
    broken = {"logits": predictions[0][0], "embedding": predictions[0][1], "features": features}
    with torch.no_grad():
        broken[where][1] = value
    with pytest.raises(FloatingPointError, match="image 1"):
        _criterion()(predictions, features, targets)


def test_points_keep_their_precision_under_autocast():
    """In bfloat16 a point of a 512 pixel image would be off by up to a pixel."""
    _, features, targets = _inputs(layers=1, counts=(1, 1), size=(512, 512))
    for target in targets:
        target.masks[:] = False
        target.masks[..., 441] = True
    points = torch.rand(1, 50, 2)
    points[..., 0] = 441.5 / 512  # all on the mask
    criterion = _criterion()
    criterion.matching_points = lambda device: points
    criterion.loss_points = lambda masks: points.expand(len(masks), -1, -1)
    features = torch.full_like(features, 10.0)  # as the prediction says, too
    predictions = [(torch.zeros(2, QUERIES, CLASSES + 1), torch.ones(2, QUERIES, DIM))]
    with torch.autocast("cpu", torch.bfloat16):
        losses = criterion(predictions, features.bfloat16(), targets)
    assert losses["loss_mask"] < 1e-3
    assert losses["loss_dice"] < 1e-3


def test_matching_does_not_overflow_in_half_precision():
    """12544 points of logits 10 sum to more than float16 holds."""
    predictions, features, targets = _inputs(layers=1, counts=(2, 1))
    for target in targets:
        target.masks[:] = True
    criterion = _criterion(points=12544)
    half = [(c.half(), torch.full_like(e, 10 / DIM).half()) for c, e in predictions]
    with torch.autocast("cpu", torch.float16):
        [pairs] = criterion.match(half, torch.ones_like(features).half().unbind(), targets)
    assert [len(queries) for queries, _ in pairs] == [2, 1]


def test_the_seed_decides_the_points():
    inputs = _inputs()
    values = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        values.append(_criterion()(*inputs)["loss_mask"].item())
    assert values[0] == values[1] != values[2]


def test_matching_and_losses_are_those_of_the_official_code(shared):
    golden = np.load(shared / "parity/losses/mask2former.npz")
    masks = torch.from_numpy(golden["pred_masks"])
    queries = masks.shape[1]
    criterion = PointSetCriterion(num_classes=golden["pred_logits"].shape[-1] - 1)
    points = _cell_centres(112, 112)
    criterion.matching_points = lambda device: points
    criterion.loss_points = lambda masks: points.expand(len(masks), -1, -1)
    targets = [
        Targets(torch.from_numpy(golden[f"labels_{i}"]), torch.from_numpy(golden[f"masks_{i}"]))
        for i in (0, 1)
    ]
    # The identity as embedding: then the masks themselves are the features.
    embedding = torch.eye(queries).expand(2, -1, -1)
    predictions = [(torch.from_numpy(golden["pred_logits"]), embedding)]
    [matches] = criterion.match(predictions, masks, targets)
    for image, (found_queries, found_targets) in enumerate(matches):
        expected_queries, expected_targets = golden[f"expected_match_{image}"]
        assert found_queries.tolist() == expected_queries.tolist()
        assert found_targets.tolist() == expected_targets.tolist()
    losses = criterion(predictions, masks, targets)
    for name, weight in (("ce", 2.0), ("mask", 5.0), ("dice", 5.0)):
        expected = float(golden[f"expected_loss_{name}"])
        assert losses[f"loss_{name}"].item() / weight == pytest.approx(expected, rel=1e-5)
