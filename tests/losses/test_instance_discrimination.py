import torch
import torch.nn.functional as F

from mask_transformers.losses.instance_discrimination import instance_discrimination_loss


def test_the_loss_is_the_cross_entropy_with_the_matrix_of_positives():
    features, owner = torch.randn(6, 30), torch.randint(0, 4, (30,))
    vectors = features / features.norm(dim=0)
    same = (owner[:, None] == owner).float()
    similarity = vectors.T @ vectors / 0.3
    expected = F.cross_entropy(similarity, same / same.sum(1, keepdim=True))
    torch.testing.assert_close(instance_discrimination_loss(features, owner, 0.3), expected)


def test_features_that_tell_masks_apart_are_better():
    owner = torch.arange(30) % 3
    apart = torch.eye(6)[:, owner]
    good = instance_discrimination_loss(apart, owner, 0.3)
    assert good < instance_discrimination_loss(torch.ones(6, 30), owner, 0.3)
    assert good < instance_discrimination_loss(apart, owner.sort().values, 0.3)


def test_without_pixels_the_loss_is_zero_and_has_a_gradient():
    features = torch.randn(6, 0, requires_grad=True)
    loss = instance_discrimination_loss(features, torch.zeros(0, dtype=torch.long), 0.3)
    loss.backward()
    assert loss == 0
    assert features.grad is not None
