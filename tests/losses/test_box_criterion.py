import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

from mask_transformers.losses.box_criterion import BoxSetCriterion
from mask_transformers.structures import BoxTargets

CLASSES, QUERIES = 4, 6


def _predictions(layers=3, images=2):
    shape = (images, QUERIES)
    return [
        (
            torch.randn(*shape, CLASSES + 1, requires_grad=True),
            torch.rand(*shape, 4).add(0.1).div(2).requires_grad_(),
        )
        for _ in range(layers)
    ]


def _targets(counts=(2, 3), size=(16, 24)):
    return [
        BoxTargets(
            torch.arange(n) % CLASSES,
            torch.rand(n, 4).add(0.1).div(2),
            torch.rand(n, *size) > 0.5,
            f"image {i}",
        )
        for i, n in enumerate(counts)
    ]


def _criterion(**arguments):
    return BoxSetCriterion(num_classes=CLASSES, **arguments)


def test_every_layer_has_three_losses_and_the_last_no_suffix():
    losses = _criterion()(_predictions(3), _targets())
    names = {f"loss_{kind}{i}" for kind in ("ce", "bbox", "giou") for i in ("_0", "_1", "")}
    assert set(losses) == names
    last = _criterion(deep_supervision=False)(_predictions(3), _targets())
    assert set(last) == {"loss_ce", "loss_bbox", "loss_giou"}


def test_losses_are_those_of_the_matched_pairs():
    predictions, targets = _predictions(1), _targets()
    criterion = _criterion(class_weight=3.0, box_weight=5.0, giou_weight=2.0)
    losses = criterion(predictions, targets)
    logits, boxes = predictions[0]
    classes = torch.full((2, QUERIES), CLASSES)
    l1 = giou = 0.0
    for i, (queries, chosen) in enumerate(criterion.match(predictions[0], targets)):
        classes[i, queries] = targets[i].labels[chosen]
        found, wanted = boxes[i, queries], targets[i].boxes[chosen]
        l1 += F.l1_loss(found, wanted, reduction="sum")
        corners = [box_convert(b, "cxcywh", "xyxy") for b in (found, wanted)]
        giou += (1 - generalized_box_iou(*corners).diag()).sum()
    weights = torch.tensor([1.0] * CLASSES + [0.1])
    ce = F.cross_entropy(logits.transpose(1, 2), classes, weights)
    torch.testing.assert_close(losses["loss_ce"], 3 * ce)
    torch.testing.assert_close(losses["loss_bbox"], 5 * l1 / 5)
    torch.testing.assert_close(losses["loss_giou"], 2 * giou / 5)


def _matched_query(widths, probabilities=(0.5, 0.5)):
    """Which of two boxes goes to one 0.4 wide, of the same height and centre, in class 0."""
    logits = torch.full((1, 2, CLASSES + 1), -torch.inf)
    logits[0, :, 0] = torch.tensor(probabilities).log()
    logits[0, :, -1] = (1 - torch.tensor(probabilities)).log()
    boxes = torch.tensor([[[0.5, 0.5, width, 0.4] for width in widths]])
    target = BoxTargets(
        torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.zeros(1, 0, 0).bool()
    )
    [(queries, chosen)] = _criterion().match((logits, boxes), [target])
    assert chosen.tolist() == [0]
    return queries.item()


def test_a_match_that_the_distance_decides():
    # Costs 5 · 0.2 - 2 · 2/3 and 5 · 0.15 - 2 · 5/8: the first one has the higher IoU.
    assert _matched_query([0.6, 0.25]) == 1
    assert _matched_query([0.25, 0.6]) == 0


def test_a_match_that_the_overlap_decides():
    # Costs 5 · 0.18 - 2 · 0.55 and 5 · 0.2 - 2 · 2/3: the first one is nearer.
    assert _matched_query([0.22, 0.6]) == 1
    assert _matched_query([0.6, 0.22]) == 0


def test_a_match_that_the_class_decides():
    # The better box costs -0.5, the other one -1/3, and their classes -0.5 and -0.5 or -0.7.
    assert _matched_query([0.25, 0.6], [0.5, 0.6]) == 0
    assert _matched_query([0.25, 0.6], [0.5, 0.7]) == 1


def test_mask_losses_are_sums_over_the_pairs_by_the_mean_count():
    targets = _targets((2, 3))
    pairs = [
        (torch.tensor(queries), torch.tensor(chosen))
        for queries, chosen in (([1, 4], [1, 0]), ([0, 2, 5], [2, 0, 1]))
    ]
    masks = [torch.randn(n, 4, 6) * 3 for n in (2, 3)]
    losses = _criterion(mask_weight=3.0, dice_weight=7.0).mask_losses(masks, targets, pairs)
    focal = dice = 0.0
    for logits, target, (_, chosen) in zip(masks, targets, pairs, strict=True):
        logits = F.interpolate(logits[None], size=(16, 24), mode="bilinear")[0]
        truth, probability = target.masks[chosen].float(), logits.sigmoid()
        focal += sigmoid_focal_loss(logits, truth).mean((1, 2)).sum()
        both = (probability * truth).sum((1, 2))
        either = probability.sum((1, 2)) + truth.sum((1, 2))
        dice += (1 - (2 * both + 1) / (either + 1)).sum()
    torch.testing.assert_close(losses["loss_mask"], 3 * focal / 5)
    torch.testing.assert_close(losses["loss_dice"], 7 * dice / 5)


@pytest.mark.parametrize("counts", [(0, 0), (0, 3)])
def test_images_without_objects_reach_every_tensor(counts):
    predictions, targets = _predictions(2), _targets(counts)
    masks = [torch.randn(min(n, QUERIES), 4, 6, requires_grad=True) for n in counts]
    criterion = _criterion()
    losses = criterion(predictions, targets)
    losses |= criterion.mask_losses(masks, targets, criterion.match(predictions[-1], targets))
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(part.grad is not None for prediction in predictions for part in prediction)
    assert all(part.grad is not None for part in masks)


@pytest.mark.parametrize("part", [0, 1])
def test_predictions_that_are_not_finite_name_the_image(part):
    predictions = _predictions(1)
    with torch.no_grad():
        predictions[0][part][1] = float("nan")
    with pytest.raises(FloatingPointError, match="image 1"):
        _criterion()(predictions, _targets())


def test_matching_and_losses_are_those_of_the_official_code(shared):
    golden = np.load(shared / "parity/losses/detr.npz")
    tensors = {name: torch.from_numpy(golden[name]) for name in golden.files if golden[name].ndim}
    criterion = BoxSetCriterion(num_classes=tensors["pred_logits"].shape[-1] - 1)
    targets = [
        BoxTargets(*(tensors[f"{kind}_{i}"] for kind in ("labels", "boxes", "masks")))
        for i in (0, 1)
    ]
    prediction = (tensors["pred_logits"], tensors["pred_boxes"])
    pairs = criterion.match(prediction, targets)
    for image, (queries, chosen) in enumerate(pairs):
        assert [queries.tolist(), chosen.tolist()] == golden[f"expected_match_{image}"].tolist()
    masks = [tensors["pred_masks"][i, queries] for i, (queries, _) in enumerate(pairs)]
    losses = criterion([prediction], targets) | criterion.mask_losses(masks, targets, pairs)
    weights = {"ce": 1.0, "bbox": 5.0, "giou": 2.0, "mask": 1.0, "dice": 1.0}
    for name, weight in weights.items():
        expected = float(golden[f"expected_loss_{name}"])
        assert losses[f"loss_{name}"].item() / weight == pytest.approx(expected, rel=1e-5)
