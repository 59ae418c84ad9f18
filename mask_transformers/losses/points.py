"""Points at which masks are compared, in place of all pixels (PointRend, section 3)."""

import torch
import torch.nn.functional as F


def sample_at(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear values of ``maps`` (M, C, H, W) at ``points`` (M, P, 2): (M, C, P).

    Points are (x, y) in [0, 1] × [0, 1] of the image, whatever the resolution of the map.
    """
    return F.grid_sample(maps, (2 * points - 1).unsqueeze(2), align_corners=False).squeeze(3)


def random_points(count: int, number: int, device: torch.device) -> torch.Tensor:
    """``count`` independent sets of ``number`` uniform points: (count, number, 2)."""
    return torch.rand(count, number, 2, device=device)


@torch.no_grad()
def uncertain_points(
    masks: torch.Tensor, number: int, oversample_ratio: float, importance_ratio: float
) -> torch.Tensor:
    """``number`` points for every mask (M, h, w), most of them where its logit is near zero.

    Of ``oversample_ratio`` × ``number`` random points the most uncertain are kept, as a share
    ``importance_ratio`` of the result; the rest is uniformly random. Returns (M, number, 2).
    """
    drawn = random_points(len(masks), int(number * oversample_ratio), masks.device)
    doubt = sample_at(masks.unsqueeze(1), drawn).squeeze(1).abs_()  # small is uncertain
    important = int(importance_ratio * number)
    chosen = doubt.topk(important, largest=False, sorted=False).indices
    kept = drawn.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 2))
    return torch.cat([kept, random_points(len(masks), number - important, masks.device)], 1)
