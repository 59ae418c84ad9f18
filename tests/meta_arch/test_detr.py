import pytest
import torch

BOXES = "detr_small_custom_box"
MASKS = "detr_small_shapes_panoptic"
NODE = "MODEL.MASK_TRANSFORMER."
SIZES = [(64, 96), (32, 48)]  # of images in a batch of 64 by 96 pixels
SECOND = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)  # of the batch


def _step(model, records):
    losses = model.train()(records)
    sum(losses.values()).backward()
    missed = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missed == []
    return losses


@pytest.mark.parametrize("name", [BOXES, MASKS])
@pytest.mark.parametrize("counts", [(3, 1), (0, 2), (0, 0)])
def test_a_training_step_reaches_every_parameter(tiny_model, make_record, name, counts):
    losses = _step(tiny_model(name), [make_record(n) for n in counts])
    assert all(torch.isfinite(value) for value in losses.values())


def test_training_lowers_the_loss(tiny_model, make_record):
    model, records = tiny_model(MASKS), [make_record(2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        values.append(sum(_step(model, records).values()).item())
        optimizer.step()
    assert values[-1] < 0.8 * values[0]


def test_a_frozen_detector_trains_only_its_mask_head(tiny_model, make_record):
    model = tiny_model(MASKS, {NODE + "MASK_HEAD.FREEZE_DETECTOR": True})
    losses = _step(model, [make_record(2)])
    assert set(losses) == {"loss_mask", "loss_dice"}
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained == [n for n, _ in model.named_parameters() if n.startswith("mask_head.")]
    for part in (model.backbone, model.encoder, model.decoder):
        assert not any(module.training for module in part.modules())
    assert all(module.training for module in model.mask_head.modules())


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (33, 2)])
def test_images_smaller_than_a_stride(tiny_model, make_record, size):
    model = tiny_model(MASKS)
    record = make_record(2, size)
    assert all(torch.isfinite(value) for value in _step(model, [record]).values())
    [result] = model.eval()([{"image": record["image"], "height": 50, "width": 70}])
    assert result["panoptic_seg"][0].shape == (50, 70)
    assert result["instances"].pred_masks.shape[1:] == (50, 70)


def test_boxes_without_a_mask_head(tiny_model, make_record):
    model = tiny_model(BOXES).eval()
    [result] = model([make_record()])
    assert set(result) == {"instances"}
    assert set(result["instances"].get_fields()) == {"pred_boxes", "scores", "pred_classes"}
    assert (result["instances"].scores.diff() <= 0).all()


def test_only_queries_that_are_kept_get_a_mask(tiny_model, make_record, monkeypatch):
    model = tiny_model(MASKS, {NODE + "TEST.TASKS": ["panoptic"]}).eval()
    asked = []
    compute = model.masks
    monkeypatch.setattr(model, "masks", lambda s, i, q: asked.append(len(q)) or compute(s, i, q))
    with torch.no_grad():
        model.class_embed.bias[:] = torch.tensor([9.0] + [0.0] * 8)
        model.class_embed.weight.zero_()
        [every] = model([make_record()])
        model.class_embed.bias[:] = torch.tensor([0.0] * 8 + [9.0])
        [none] = model([make_record()])
    assert asked == [7, 0]
    assert len(every["panoptic_seg"][1]) > 0
    assert none["panoptic_seg"][1] == []


def test_masks_of_the_results_are_those_of_raw_outputs(tiny_model, make_record):
    model, record = tiny_model(MASKS).eval(), make_record(size=(64, 96))
    model.wanted.thing_classes = set(range(8))
    images = model.prepare_images([record]).tensor
    with torch.no_grad():
        raw = model.raw_outputs(images)
        [result] = model([record])
    scores = raw["pred_logits"][0].softmax(-1)[:, :-1].amax(1)
    best = scores.argsort(descending=True)
    masks = raw["pred_masks"][:, best]
    masks = torch.nn.functional.interpolate(masks, size=(64, 96), mode="bilinear")[0] > 0
    torch.testing.assert_close(result["instances"].scores, scores[best])
    assert (result["instances"].pred_masks == masks).float().mean() > 0.999


def test_boxes_that_are_learnt_are_relative_to_the_image_without_padding(tiny_model, make_record):
    model = tiny_model(BOXES)
    record = make_record(1, (40, 60))
    record["instances"].gt_boxes.tensor[:] = torch.tensor([30.0, 10.0, 60.0, 30.0])
    seen = []
    model.criterion.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    model([record, make_record(1, (100, 200))])
    assert seen[0][0].boxes.tolist() == [[0.75, 0.5, 0.5, 0.5]]


def test_class_ids_of_the_data_set_are_learnt_and_taken_back(tiny_model, make_record):
    model = tiny_model(BOXES)
    model.class_ids = torch.tensor([6, 0, 5])
    record = make_record(3)
    seen = []
    model.criterion.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    model.class_embed = torch.nn.Linear(128, 9)
    model.criterion.class_balance = torch.ones(9)
    model([record])
    assert seen[0][0].labels.tolist() == [6, 0, 5]
    with torch.no_grad():
        model.class_embed.weight.zero_()
        model.class_embed.bias[:] = torch.tensor([0, 0, 0, 0, 0, 9.0, 0, 99, 0])
        [result] = model.eval()([record])
    assert set(result["instances"].pred_classes.tolist()) == {2}
    assert (result["instances"].scores < 1e-3).all()  # the logit that stands for nothing is higher


def _detect(model, images=None, sizes=SIZES):
    """The scene of two images, the second of which is padded, in training."""
    with torch.no_grad():
        return model.train().detect(torch.zeros(2, 3, 64, 96) if images is None else images, sizes)


def test_attention_in_training_does_not_see_padding(tiny_model, monkeypatch):
    model = tiny_model(BOXES)
    features = model.backbone(torch.randn(2, 3, 64, 96))
    monkeypatch.setattr(model.backbone, "forward", lambda images: features)
    scene, unaware = _detect(model), _detect(model, sizes=SIZES[:1] * 2)
    inside = scene.grid.inside[1].view(4, 6)
    assert scene.grid.inside[0].all()
    assert inside.nonzero().tolist() == [[row, column] for row in (0, 1) for column in (0, 1, 2)]

    coarse = features[model.coarse]
    features[model.coarse] = coarse + 10 * torch.randn_like(coarse) * ~inside * SECOND
    torch.testing.assert_close(_detect(model).queries, scene.queries)
    assert _differ(_detect(model, sizes=SIZES[:1] * 2).queries[1], unaware.queries[1])
    features[model.coarse] = coarse + 10 * torch.randn_like(coarse) * inside * SECOND
    assert _differ(_detect(model).queries[1], scene.queries[1])


def _differ(one, other):
    return (one - other).abs().max() > 1e-2


def test_masks_in_training_do_not_look_at_padding(tiny_model):
    model = tiny_model(MASKS)
    maps = []
    model.mask_head.attention.register_forward_hook(lambda module, _, seen: maps.append(seen))
    scene = _detect(model, torch.randn(2, 3, 64, 96))
    with torch.no_grad():
        for image in (0, 1):
            assert model.masks(scene, image, torch.arange(3)).shape == (3, 16, 24)
    whole, padded = maps  # (queries, heads, h, w)
    assert (whole > 0).all()
    assert (padded[..., :2, :3] > 0).all()
    torch.testing.assert_close(padded[..., :2, :3].sum((1, 2, 3)), torch.ones(3))


def test_bfloat16_autocast_trains_and_keeps_boxes_in_full_precision(tiny_model, make_record):
    model, seen = tiny_model(MASKS), []
    model.wanted.thing_classes = set(range(8))
    model.criterion.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0]))
    records = [make_record(3), make_record(0)]
    with torch.autocast("cpu", torch.bfloat16):
        losses = _step(model, records)
        with torch.no_grad():
            results = model.eval()(records)
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert len(seen) == 3
    boxes = [boxes for _, boxes in seen] + [r["instances"].pred_boxes.tensor for r in results]
    for few in boxes:
        assert few.dtype == torch.float32
        assert (few != few.bfloat16()).any()


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        (BOXES, {NODE + "TEST.TASKS": ["instance"]}, r"TEST\.TASKS .*'box'\], not \['instance'\]"),
        (MASKS, {NODE + "TEST.TASKS": ["semantic"]}, r"TEST\.TASKS .*not \['semantic'\]"),
        (MASKS, {"INPUT.ANNOTATIONS": "semantic"}, r"INPUT\.ANNOTATIONS with masks"),
        (BOXES, {NODE + "MASK_HEAD.FREEZE_DETECTOR": True}, r"FREEZE_DETECTOR leaves nothing"),
        (BOXES, {NODE + "MATCHER": "fixed"}, r"MATCHER of DETR must be 'hungarian'"),
        (BOXES, {NODE + "TRANSFORMER_DECODER.NAME": "StandardDecoder"}, r"NAME of DETR must be ''"),
        (BOXES, {NODE + "PIXEL_DECODER.IN_FEATURES": ["p5"]}, r"IN_FEATURES is \['p5'\]"),
        (BOXES, {NODE + "PIXEL_DECODER.IN_FEATURES": []}, r"IN_FEATURES is \[\]"),
    ],
)
def test_contradictory_configs_name_the_key(tiny_model, name, keys, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(name, keys)


@pytest.mark.parametrize("key", ["CLASS_IDS", "MASK_HEAD.ENABLED"])
def test_what_only_detr_has(tiny_model, key):
    value = "dataset" if key == "CLASS_IDS" else True
    with pytest.raises(ValueError, match=rf"{key.split('.')[0]}.* only DETR .*not Mask2Former"):
        tiny_model(keys={NODE + key: value})


def test_many_masks_are_trained_a_few_at_a_time(tiny_model, make_record, monkeypatch):
    model = tiny_model(MASKS).train()
    records = [make_record(5)]
    whole = model(records)
    sum(whole.values()).backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    asked = []
    compute = model.masks
    monkeypatch.setattr(model, "masks", lambda s, i, q: asked.append(len(q)) or compute(s, i, q))
    monkeypatch.setattr("mask_transformers.meta_arch.detr.FEW", 2)
    parts = model(records)
    sum(parts.values()).backward()
    assert asked == [2, 2, 1, 1, 2, 2]  # and once more in the backward pass, the last one first
    torch.testing.assert_close(parts, whole)
    for name, gradient in expected.items():
        found = model.get_parameter(name).grad
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-5)


def test_masks_that_are_missing_name_the_image(tiny_model, make_record):
    record = make_record(1)
    record["instances"].remove("gt_masks")
    with pytest.raises(KeyError, match=r"some/image\.png have no 'gt_masks'"):
        tiny_model(MASKS)([record])
    tiny_model(BOXES)([record])


@pytest.mark.parametrize("name", [BOXES, MASKS])
def test_boxes_that_are_missing_name_the_image(tiny_model, make_record, name):
    record = make_record(1)
    record["instances"].remove("gt_boxes")
    with pytest.raises(
        KeyError, match=r"the instances of image some/image\.png have no 'gt_boxes'"
    ):
        tiny_model(name)([record])


@pytest.mark.parametrize("name", ["detr_R50_coco", "detr_R50_coco_panoptic"])
def test_outputs_are_those_of_the_official_model(reference, difference, name):
    outputs, golden = reference(name)
    assert difference(outputs["pred_logits"][0], golden["logits"]) < 1e-5
    assert difference(outputs["pred_boxes"][0], golden["boxes"]) < 1e-5
    if "masks" in golden:
        assert difference(outputs["pred_masks"][0, :, ::4, ::4], golden["masks"]) < 1e-5
