import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss

from mask_transformers.losses.mask_criterion import MaskSetCriterion
from mask_transformers.losses.masks import dice_loss
from mask_transformers.structures import Targets

CLASSES, QUERIES, DIM = 4, 6, 5


def _inputs(layers=3, counts=(2, 3), size=(16, 24)):
    predictions = [
        (
            torch.randn(len(counts), QUERIES, CLASSES + 1, requires_grad=True),
            torch.randn(len(counts), QUERIES, DIM, requires_grad=True),
        )
        for _ in range(layers)
    ]
    features = torch.randn(len(counts), DIM, size[0] // 4, size[1] // 4, requires_grad=True)
    targets = [
        Targets(torch.randperm(CLASSES)[:n], torch.rand(n, *size) > 0.5, f"image {i}")
        for i, n in enumerate(counts)
    ]
    return predictions, features, targets


def _criterion(**arguments):
    return MaskSetCriterion(num_classes=CLASSES, **arguments)


def _match(criterion, predictions, features, targets, layer=-1):
    size = features.shape[-2:]
    small = [
        F.interpolate(t.masks[None].float(), size=size, mode="nearest")[0].flatten(1)
        for t in targets
    ]
    return criterion.match(*predictions[layer], features, targets, small)


def test_every_layer_has_three_losses_and_the_last_no_suffix():
    losses = _criterion()(*_inputs(layers=3))
    names = [f"loss_{kind}{i}" for kind in ("ce", "mask", "dice") for i in ("_0", "_1", "")]
    assert sorted(losses) == sorted(names)
    assert set(_criterion(deep_supervision=False)(*_inputs())) == {
        "loss_ce",
        "loss_mask",
        "loss_dice",
    }


def test_losses_are_those_of_upsampled_matched_masks():
    predictions, features, targets = _inputs(layers=1)
    criterion = _criterion(mask_weight=20.0, dice_weight=3.0)
    losses = criterion(predictions, features, targets)
    pairs = _match(criterion, predictions, features, targets)
    focal, dice = 0.0, 0.0
    for i, (queries, chosen) in enumerate(pairs):
        masks = torch.einsum("qc,chw->qhw", predictions[0][1][i], features[i])
        masks = F.interpolate(masks[None], size=(16, 24), mode="bilinear")[0, queries].flatten(1)
        truth = targets[i].masks[chosen].flatten(1).float()
        focal += sigmoid_focal_loss(masks, truth, 0.25, 2.0).mean(1).sum()
        dice += dice_loss(masks, truth).sum()
    torch.testing.assert_close(losses["loss_mask"], 20 * focal / 5)
    torch.testing.assert_close(losses["loss_dice"], 3 * dice / 5)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("counts", [(0, 0), (0, 3)])
def test_images_without_targets_train_and_reach_every_tensor(counts, fixed):
    predictions, features, targets = _inputs(counts=counts)
    sum(_criterion(fixed_matching=fixed)(predictions, features, targets).values()).backward()
    assert features.grad is not None
    for logits, embedding in predictions:
        assert logits.grad is not None
        assert embedding.grad is not None


def test_fixed_matching_pairs_a_query_with_its_class():
    predictions, features, targets = _inputs()
    for target, (queries, chosen) in zip(
        targets,
        _match(_criterion(fixed_matching=True), predictions, features, targets),
        strict=True,
    ):
        assert queries.tolist() == sorted(target.labels.tolist())
        assert target.labels[chosen].tolist() == queries.tolist()


@pytest.mark.parametrize("where", ["logits", "embedding", "features"])
def test_predictions_that_are_not_finite_name_the_image(where):
    predictions, features, targets = _inputs(layers=1)
    broken = {"logits": predictions[0][0], "embedding": predictions[0][1], "features": features}
    with torch.no_grad():
        broken[where][1] = float("nan")
    with pytest.raises(FloatingPointError, match="image 1"):
        _criterion()(predictions, features, targets)


def test_matching_does_not_overflow_in_half_precision():
    predictions, features, targets = _inputs(layers=1, size=(640, 640))
    half = [(c.half(), torch.full_like(e, 2).half()) for c, e in predictions]
    with torch.autocast("cpu", torch.float16):
        pairs = _match(_criterion(), half, torch.ones_like(features).half(), targets)
    assert [len(queries) for queries, _ in pairs] == [2, 3]


def test_matching_and_losses_are_those_of_the_official_code(shared):
    golden = np.load(shared / "parity/losses/maskformer.npz")
    masks = torch.from_numpy(golden["pred_masks"])
    criterion = MaskSetCriterion(num_classes=golden["pred_logits"].shape[-1] - 1)
    targets = [
        Targets(torch.from_numpy(golden[f"labels_{i}"]), torch.from_numpy(golden[f"masks_{i}"]))
        for i in (0, 1)
    ]
    # The identity as embedding: then the masks themselves are the features.
    embedding = torch.eye(masks.shape[1]).expand(2, -1, -1)
    predictions = [(torch.from_numpy(golden["pred_logits"]), embedding)]
    for image, (queries, chosen) in enumerate(_match(criterion, predictions, masks, targets)):
        assert [queries.tolist(), chosen.tolist()] == golden[f"expected_match_{image}"].tolist()
    losses = criterion(predictions, masks, targets)
    for name, weight in (("ce", 1.0), ("mask", 20.0), ("dice", 1.0)):
        expected = float(golden[f"expected_loss_{name}"])
        assert losses[f"loss_{name}"].item() / weight == pytest.approx(expected, rel=1e-5)
