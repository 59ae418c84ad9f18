import pytest
import torch
import torch.nn.functional as F

from mask_transformers.losses.max_criterion import MaXSetCriterion
from mask_transformers.losses.pq_criterion import PQSetCriterion
from mask_transformers.structures import DensePrediction, Targets

CLASSES, QUERIES, SIZE, STRIDE = 3, 5, (5, 7), 2


def _prediction():
    return DensePrediction(
        torch.randn(2, QUERIES, CLASSES + 1),
        torch.randn(2, QUERIES, *SIZE),
        F.normalize(torch.randn(2, 4, *SIZE), dim=1),
    )


def _targets(counts=(3, 1)):
    """Random owners of pixels; some have none."""
    shape = [(side - 1) * STRIDE + 1 for side in SIZE]
    targets = []
    for i, n in enumerate(counts):
        owner = torch.randint(0, n + 1, shape)
        masks = owner == torch.arange(n)[:, None, None]
        targets.append(Targets(torch.arange(n).flip(0), masks, f"image {i}"))
    return targets


def _plain_semantic_loss(maps, targets):
    """Pixel by pixel: minus the logarithm of the probability of the class of its target."""
    images = []
    for image, target in zip(maps.double(), targets, strict=True):
        terms = [
            -image[:, y, x].log_softmax(0)[target.labels[i]]
            for i, mask in enumerate(target.masks[:, ::STRIDE, ::STRIDE])
            for y, x in mask.nonzero().tolist()
        ]
        images.append(sum(terms) / max(len(terms), 1))
    return torch.as_tensor(sum(images) / len(images))


@pytest.mark.parametrize("counts", [(3, 1), (2, 0)])
def test_the_semantic_head_learns_from_every_pixel_of_a_target(counts):
    targets, maps = _targets(counts), torch.randn(2, CLASSES + 1, *SIZE, requires_grad=True)
    criterion = MaXSetCriterion(semantic_weight=2.0, points=4)
    loss = criterion([_prediction()], targets, maps)["loss_semantic"]
    torch.testing.assert_close(loss.double(), 2 * _plain_semantic_loss(maps, targets))
    loss.backward()
    covered = targets[0].masks[:, ::STRIDE, ::STRIDE].any(0)
    assert torch.equal(maps.grad[0].abs().sum(0) > 0, covered)


def test_logits_of_another_size_are_resized_with_aligned_corners():
    targets, maps = _targets(), torch.randn(2, CLASSES + 1, 3, 5)
    expected = F.interpolate(maps, SIZE, mode="bilinear", align_corners=True)
    criterion = MaXSetCriterion()
    torch.testing.assert_close(
        criterion([_prediction()], targets, maps)["loss_semantic"],
        criterion([_prediction()], targets, expected)["loss_semantic"],
    )


def test_other_losses_are_those_of_kmax_deeplab():
    prediction, targets = _prediction(), _targets()
    ours, theirs = (
        criterion(points=1000)([prediction], targets)
        for criterion in (MaXSetCriterion, PQSetCriterion)
    )
    assert set(ours) == set(theirs) == {f"loss_{k}" for k in ("ce", "mask_id", "dice", "pixel")}
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name])
