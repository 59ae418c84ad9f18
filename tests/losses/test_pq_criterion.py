from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg

from mask_transformers import add_mask_transformer_config
from mask_transformers.layers.conv_norm import resize_aligned
from mask_transformers.losses.pq_criterion import PQSetCriterion
from mask_transformers.losses.segments import partition
from mask_transformers.structures import DensePrediction, Targets

CLASSES, QUERIES, CHANNELS, SIZE = 4, 6, 5, (9, 13)
KINDS = ("ce", "mask_id", "dice", "pixel")
PARTS = ("class_logits", "mask_logits", "pixel_features")


def _prediction(size=SIZE, images=2):
    features = F.normalize(torch.randn(images, CHANNELS, *size), dim=1)
    return DensePrediction(
        torch.randn(images, QUERIES, CLASSES + 1).requires_grad_(),
        torch.randn(images, QUERIES, *size).mul(2).requires_grad_(),
        features.requires_grad_(),
    )


def _predictions():
    return [_prediction((3, 4)), _prediction((5, 7)), _prediction()]


def _semantic(images=2):
    return torch.randn(images, CLASSES + 1, *SIZE, requires_grad=True)


def _targets(counts=(3, 2), stride=1, seed=0):
    """Cells of random owners; the last owner is void."""
    height, width = ((length - 1) * stride + 1 for length in SIZE)
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for i, n in enumerate(counts):
        owner = torch.randint(0, n + 1, (height, width), generator=generator)
        masks = owner == torch.arange(n)[:, None, None]
        targets.append(Targets(torch.arange(n) % CLASSES, masks, f"image {i}"))
    return targets


def _first_pixels(log_weights, number):
    """Without noise, ties in the order of the pixels."""
    return log_weights.sort(descending=True, stable=True).indices[:number]


def _criterion(**arguments):
    criterion = PQSetCriterion(**arguments)
    criterion.draw = _first_pixels
    return criterion


def _match(prediction, targets):
    segments = [partition(target.masks, SIZE) for target in targets]
    return _criterion().match(prediction, segments, targets)


def test_every_layer_has_four_losses_and_the_head_one():
    predictions, targets, semantic = _predictions(), _targets(), _semantic()
    losses = _criterion()(predictions, targets, semantic)
    names = {f"loss_{kind}{suffix}" for kind in KINDS for suffix in ("_0", "_1", "")}
    assert set(losses) == names | {"loss_semantic"}
    last = _criterion()(predictions[-1:], targets)
    assert set(last) == {f"loss_{kind}" for kind in KINDS}
    for name, value in last.items():
        torch.testing.assert_close(value, losses[name])


def test_what_is_no_instance_is_background_and_not_void():
    """A matched mask that takes all of it is a worse one, and gradients draw it back."""
    targets = [
        replace(target, masks=target.masks[:1], labels=target.labels[:1]) for target in _targets()
    ]
    prediction = _prediction()
    void, background = (
        _criterion(background=background)([prediction], targets) for background in (False, True)
    )
    assert background["loss_dice"] > void["loss_dice"]
    torch.testing.assert_close(background["loss_mask_id"], void["loss_mask_id"])


def test_weights_scale_the_losses():
    predictions, targets, semantic = _predictions(), _targets(), _semantic()
    arguments = ("class", "mask_id", "dice", "instance", "semantic")
    plain = _criterion(**{f"{name}_weight": 1.0 for name in arguments})
    losses = _criterion()(predictions, targets, semantic)
    for name, value in plain(predictions, targets, semantic).items():
        kind = name.removeprefix("loss_").rstrip("_01")
        weight = {"ce": 3.0, "dice": 3.0, "mask_id": 0.3, "pixel": 1.0, "semantic": 1.0}[kind]
        torch.testing.assert_close(losses[name], weight * value)


def test_arguments_come_from_the_config():
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    loss = cfg.MODEL.MASK_TRANSFORMER.LOSS
    loss.CLASS_WEIGHT, loss.DICE_WEIGHT, loss.MASK_ID_WEIGHT = 3.0, 2.0, 0.5
    loss.INSTANCE_WEIGHT, loss.SEMANTIC_WEIGHT, loss.POINTS = 0.7, 0.9, 77
    criterion = PQSetCriterion(cfg)
    expected = {"ce": 3.0, "mask_id": 0.5, "dice": 2.0, "pixel": 0.7, "semantic": 0.9}
    assert criterion.weights == expected
    assert criterion.points == 77
    assert not criterion.background
    cfg.INPUT.ANNOTATIONS = "instance"
    assert PQSetCriterion(cfg).background


def _plain_similarity(prediction, target, image):
    """Class probability, dice and void share, pair by pair."""
    probability = prediction.class_logits[image].softmax(-1)
    masks = prediction.mask_logits[image].softmax(0)
    inside = target.masks.any(0)
    dice = torch.zeros(QUERIES, len(target.labels))
    for q in range(QUERIES):
        for t, mask in enumerate(target.masks):
            size = masks[q][inside].sum() + mask.sum()
            dice[q, t] = 2 * masks[q][mask].sum() / size
    void = torch.stack([m[~inside].sum() / m.sum() for m in masks])
    return probability[:, target.labels], dice, void


def test_matching_maximises_probability_times_dice():
    prediction, targets = _prediction(), _targets()
    for image, match in enumerate(_match(prediction, targets)):
        probability, dice, void = _plain_similarity(prediction, targets[image], image)
        similarity = (probability * dice).detach()
        n = similarity.shape[1]
        best = max(
            permutations(range(QUERIES), n),
            key=lambda queries: sum(similarity[q, t].item() for t, q in enumerate(queries)),
        )
        found = dict(zip(match.chosen.tolist(), match.queries.tolist(), strict=True))
        assert found == dict(enumerate(best))
        pairs = (match.queries, match.chosen)
        torch.testing.assert_close(match.probability, probability[pairs].detach())
        torch.testing.assert_close(match.dice, dice[pairs].detach())
        torch.testing.assert_close(match.void_share, void.detach())


def _plain_losses(prediction, targets):
    """Every sum written out, for a prediction at the size of the targets."""
    ce = mask_id = dice_loss = 0.0
    images = len(targets)
    for i, (match, target) in enumerate(zip(_match(prediction, targets), targets, strict=True)):
        masks = prediction.mask_logits[i].softmax(0)
        inside = target.masks.any(0)
        log_classes = prediction.class_logits[i].log_softmax(-1)
        query_of = dict(zip(match.chosen.tolist(), match.queries.tolist(), strict=True))
        pixels = 0.0
        for t, query in query_of.items():
            weight = match.dice[match.chosen == t][0]
            ce -= 0.75 * weight * log_classes[query, target.labels[t]]
            mask = target.masks[t]
            pixels -= masks[query][mask].log().sum()
            common = masks[query][mask].sum()
            dice = (2 * common + 1) / (masks[query][inside].sum() + mask.sum() + 1)
            dice_loss += 0.75 * match.probability[match.chosen == t][0] * (1 - dice)
        for query in set(range(QUERIES)) - set(query_of.values()):
            ce -= 0.25 * match.void_share[query] * log_classes[query, -1]
        mask_id += pixels / inside.sum()
    count = images * QUERIES
    return {"ce": ce / count, "mask_id": mask_id / images, "dice": dice_loss / count}


def test_losses_are_the_formulas_of_the_paper():
    prediction, targets = _prediction(), _targets()
    losses = _criterion(class_weight=1.0, dice_weight=1.0, mask_id_weight=1.0)(
        [prediction], targets
    )
    for name, expected in _plain_losses(prediction, targets).items():
        torch.testing.assert_close(losses[f"loss_{name}"], expected)


def test_weights_by_the_other_factor_have_no_gradient():
    prediction, targets = _prediction(), _targets()
    losses = _criterion()([prediction], targets)
    for name, part in {"ce": "class_logits", "dice": "mask_logits"}.items():
        tensors = [getattr(prediction, p) for p in PARTS]
        gradients = torch.autograd.grad(
            losses[f"loss_{name}"], tensors, retain_graph=True, allow_unused=True
        )
        assert [p for p, g in zip(PARTS, gradients, strict=True) if g is not None] == [part]


def test_auxiliary_layers_are_resized_and_take_the_match_of_the_last():
    predictions, targets = _predictions(), _targets()
    criterion = _criterion()
    losses = criterion(predictions, targets)
    small, last = predictions[0], predictions[-1]
    segments = [partition(target.masks, SIZE) for target in targets]
    matches = criterion.match(last, segments, targets)
    large = replace(
        small,
        mask_logits=resize_aligned(small.mask_logits, SIZE),
        pixel_features=F.normalize(resize_aligned(small.pixel_features, SIZE), dim=1),
    )
    criterion.match = lambda *_: matches
    expected = criterion([large], targets)
    for kind in KINDS:
        torch.testing.assert_close(losses[f"loss_{kind}_0"], expected[f"loss_{kind}"])


def test_targets_are_brought_to_the_grid_of_the_last_layer():
    predictions, fine = _predictions(), _targets(stride=4)
    coarse = [replace(target, masks=target.masks[:, ::4, ::4]) for target in fine]
    losses = _criterion()(predictions, fine, semantic := _semantic())
    for name, value in _criterion()(predictions, coarse, semantic).items():
        torch.testing.assert_close(losses[name], value)


def test_a_target_without_a_pixel_in_the_grid_has_no_query():
    predictions, targets = _predictions(), _targets()
    alone = _criterion()(predictions, targets, semantic := _semantic())
    targets[0].masks = torch.cat([targets[0].masks, torch.zeros(1, *SIZE, dtype=torch.bool)])
    targets[0].labels = torch.cat([targets[0].labels, torch.tensor([0])])
    assert [len(match.queries) for match in _match(predictions[-1], targets)] == [3, 2]
    for name, value in _criterion()(predictions, targets, semantic).items():
        torch.testing.assert_close(value, alone[name])


def test_more_targets_than_queries():
    predictions, targets = _predictions(), _targets((QUERIES + 3, 2))
    losses = _criterion()(predictions, targets, _semantic())
    assert all(torch.isfinite(value) for value in losses.values())


def test_a_batch_is_the_mean_of_its_images():
    predictions, targets, semantic = _predictions(), _targets(), _semantic()
    losses = _criterion()(predictions, targets, semantic)
    single = []
    for i in range(2):
        parts = [
            DensePrediction(*(getattr(p, name)[i : i + 1] for name in PARTS)) for p in predictions
        ]
        single.append(_criterion()(parts, targets[i : i + 1], semantic[i : i + 1]))
    for name, value in losses.items():
        torch.testing.assert_close(value, (single[0][name] + single[1][name]) / 2)


def test_predictions_in_void_change_no_loss_but_what_is_no_object():
    targets = _targets()
    void = torch.stack([~target.masks.any(0) for target in targets])[:, None]
    prediction, semantic = _prediction(), _semantic()
    noise = [torch.randn_like(x) * 3 for x in (prediction.mask_logits, semantic)]
    other = replace(
        prediction,
        mask_logits=prediction.mask_logits + noise[0] * void,
        pixel_features=prediction.pixel_features.where(~void, torch.tensor(1.0)),
    )
    before = _criterion()([prediction], targets, semantic)
    after = _criterion()([other], targets, semantic + noise[1] * void)
    for name in ("loss_mask_id", "loss_dice", "loss_pixel", "loss_semantic"):
        torch.testing.assert_close(after[name], before[name])
    pairs = [_match(p, targets) for p in (prediction, other)]
    for first, second in zip(*pairs, strict=True):
        assert first.queries.tolist() == second.queries.tolist()
        torch.testing.assert_close(first.dice, second.dice)
        assert not torch.allclose(first.void_share, second.void_share)


def test_predictions_in_void_get_no_gradient():
    targets, prediction, semantic = _targets(), _prediction(), _semantic()
    void = torch.stack([~target.masks.any(0) for target in targets])
    sum(_criterion()([prediction], targets, semantic).values()).backward()
    for tensor in (prediction.mask_logits, prediction.pixel_features, semantic):
        moved = tensor.grad.abs().sum(1)
        assert moved[void].max() == 0
        assert moved[~void].min() > 0


@pytest.mark.parametrize("counts", [(0, 0), (0, 3)])
def test_images_without_targets_reach_every_tensor(counts):
    predictions, semantic = _predictions(), _semantic()
    losses = _criterion()(predictions, _targets(counts), semantic)
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    tensors = [getattr(p, name) for p in predictions for name in PARTS] + [semantic]
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in tensors)


@pytest.mark.parametrize("count", [0, 2])
def test_an_image_of_void_teaches_no_object_and_nothing_else(count):
    predictions, semantic = _predictions(), _semantic()
    targets = _targets((count, count))
    for target in targets:
        target.masks[:] = False
    losses = _criterion(class_weight=1.0)(predictions, targets, semantic)
    for i, suffix in enumerate(("_0", "_1", "")):
        no_object = -predictions[i].class_logits.log_softmax(-1)[..., -1].mean()
        torch.testing.assert_close(losses.pop(f"loss_ce{suffix}"), 0.25 * no_object)
    assert all(value == 0 for value in losses.values())


def test_sampling_prefers_small_targets_and_small_classes():
    seen = []

    class Watched(PQSetCriterion):
        def draw(self, log_weights, number):
            seen.append((log_weights, number))
            return super().draw(log_weights, number)

    masks = torch.zeros(3, *SIZE, dtype=torch.bool)
    masks[0, 0, :2], masks[1, 1, :3], masks[2, 2:4, :4] = True, True, True
    targets = [Targets(torch.tensor([1, 2, 1]), masks)]
    features = DensePrediction(*(getattr(_prediction(images=1), name) for name in PARTS))
    Watched(points=6)([features], targets, _semantic(1))
    for areas, exponent, (weights, number) in zip(
        ([2, 3, 8], [10, 3, 10]), (1.5, 2.0), seen, strict=True
    ):
        expected = torch.tensor(areas).repeat_interleave(torch.tensor([2, 3, 8])) ** -exponent
        torch.testing.assert_close(weights.exp(), expected)
        assert number == 6


@pytest.mark.parametrize("points", [5, 10_000])
def test_noise_draws_any_number_of_pixels(points):
    losses = PQSetCriterion(points=points)(_predictions(), _targets(), _semantic())
    assert all(torch.isfinite(value) for value in losses.values())


def test_half_precision_loses_nothing_but_its_own_digits():
    prediction, targets = _prediction(), _targets()
    half = DensePrediction(*(getattr(prediction, name).bfloat16() for name in PARTS))
    full = DensePrediction(*(getattr(half, name).float() for name in PARTS))
    expected = _criterion()([full], targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = _criterion()([half], targets)
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("part", ["class_logits", "mask_logits"])
def test_predictions_that_are_not_finite_name_the_image(part):
    prediction = _prediction()
    with torch.no_grad():
        getattr(prediction, part)[1, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="image 1"):
        _criterion()([prediction], _targets())


def test_losses_are_those_of_the_official_code(shared):
    golden = np.load(shared / "parity/losses/kmax_deeplab.npz")
    tensors = {name: torch.from_numpy(golden[name]) for name in golden.files if golden[name].ndim}
    targets = [Targets(tensors[f"labels_{i}"], tensors[f"masks_{i}"]) for i in (0, 1)]
    prediction = DensePrediction(
        tensors["pred_logits"], tensors["pred_masks"], tensors["pixel_feature"]
    )
    losses = _criterion(points=512)([prediction], targets, tensors["aux_semantic_pred"])
    official = {
        "ce": ("ce", 3.0),
        "mask_id": ("mask", 0.3),
        "dice": ("dice", 3.0),
        "pixel": ("pixel_insdis", 1.0),
        "semantic": ("aux_semantic", 1.0),
    }
    for name, (theirs, weight) in official.items():
        expected = float(golden[f"expected_loss_{theirs}"])
        assert losses[f"loss_{name}"].item() / weight == pytest.approx(expected, rel=1e-5)
