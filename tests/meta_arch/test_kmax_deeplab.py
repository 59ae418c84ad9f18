import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import BitMasks

from mask_transformers.layers.axial_attention import MAX_LENGTH
from mask_transformers.layers.conv_norm import SyncNorm, resize_aligned

COCO = "kmax_R50_coco_panoptic"
NODE = "MODEL.MASK_TRANSFORMER."
TASKS = NODE + "TEST.TASKS"
EVERY_PIXEL = {NODE + "LOSS.POINTS": 10_000}  # nothing is drawn by chance
KINDS = {"ce", "mask_id", "dice", "pixel"}


@pytest.fixture
def model(tiny_model):
    return tiny_model(COCO)


def _step(model, records):
    losses = model.train()(records)
    sum(losses.values()).backward()
    return losses


def _random_norms(model):
    """As after some training: branches that started from nothing count, norms differ."""
    for module in model.modules():
        if isinstance(module, SyncNorm) and len(module.weight) > 1:
            torch.nn.init.uniform_(module.weight, 0.5, 1)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model


@pytest.mark.parametrize("counts", [(3, 1), (0, 2), (0, 0)])
def test_a_training_step_reaches_every_parameter(model, make_record, counts):
    losses = _step(_random_norms(model), [make_record(n) for n in counts])
    suffixes = ("_0", "_1", "_2", "")  # a layer at each of three strides, and the last prediction
    names = {f"loss_{kind}{suffix}" for kind in KINDS for suffix in suffixes}
    assert set(losses) == names | {"loss_semantic"}
    assert all(torch.isfinite(value) for value in losses.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_training_lowers_the_loss(model, make_record):
    records = [make_record(2), make_record(2)]
    for record in records:
        masks = record["instances"].gt_masks.tensor
        masks[:] = False
        masks[0, :24] = masks[1, 24:] = True
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(8):
        optimizer.zero_grad()
        totals.append(sum(_step(model, records).values()).item())
        optimizer.step()
    assert totals[-1] < 0.9 * totals[0]


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (33, 2)])
def test_images_smaller_than_a_stride(tiny_model, make_record, size):
    model = tiny_model(COCO, {TASKS: ["panoptic", "semantic", "instance"]})
    record = make_record(2, size)
    losses = _step(model, [record, make_record(0, size)])
    assert all(torch.isfinite(value) for value in losses.values())
    [result] = model.eval()([{"image": record["image"], "height": 50, "width": 70}])
    assert result["panoptic_seg"][0].shape == (50, 70)
    assert result["sem_seg"].shape == (133, 50, 70)
    assert result["instances"].image_size == (50, 70)


def test_more_instances_than_queries_train(tiny_model, make_record):
    model = tiny_model(COCO, {NODE + "QUERIES": 3})
    losses = _step(model, [make_record(12), make_record(1)])
    assert all(torch.isfinite(value) for value in losses.values())


def test_nan_predictions_stop_training_and_name_the_image(model, make_record):
    records = [make_record(name="some.png"), make_record(name="other.png")]
    records[1]["image"] = torch.full((3, 48, 64), float("nan"))
    with pytest.raises(FloatingPointError, match=r"(some|other)\.png"):
        model.train()(records)  # batch norms hand it on to all images


def test_one_image_is_not_enough_for_batch_norms(model, make_record):
    with pytest.raises(ValueError, match=r"two or more images at once \(SOLVER\.IMS_PER_BATCH\)"):
        model.train()([make_record()])


def test_one_process_trains_with_batch_norms_of_the_whole_batch(model, make_record):
    seen = []
    norm = model.backbone.stem.conv1.norm
    norm.register_forward_hook(lambda module, inputs, y: seen.append((inputs[0], y.clone())))
    model.train()([make_record(), make_record(1, (90, 40))])
    [(maps, normed)] = seen
    assert len(maps) == 2
    expected = F.batch_norm(maps, None, None, norm.weight, norm.bias, training=True, eps=1e-3)
    torch.testing.assert_close(normed, expected)
    torch.testing.assert_close(norm.running_mean, 0.01 * maps.mean((0, 2, 3)))
    assert {m.eps for m in model.modules() if isinstance(m, SyncNorm)} == {1e-3}


def _spied(model):
    """What the criterion receives: predictions, targets, semantic logits."""
    seen = []
    model.criterion.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs))
    return seen


def test_void_and_padding_teach_nothing(tiny_model, make_record):
    model, records = tiny_model(COCO, EVERY_PIXEL), [make_record(2), make_record(3, (33, 90))]
    seen = _spied(model)
    losses = model.train()(records)
    predictions, targets, semantic = seen
    features = predictions[-1].pixel_features
    pixel = losses.pop("loss_pixel")
    gradients = torch.autograd.grad(
        sum(losses.values()), [predictions[-1].mask_logits, semantic], retain_graph=True
    )
    gradients += torch.autograd.grad(pixel, features)  # of others by the masks, and their norm
    for i, (target, record) in enumerate(zip(targets, records, strict=True)):
        assert target.masks.shape[1:] == (65, 129)
        height, width = record["image"].shape[1:]
        assert not target.masks[:, height:].any()
        assert not target.masks[:, :, width:].any()
        inside = target.masks[:, ::4, ::4].any(0)  # (h, w) of the last layer
        assert 0 < inside.sum() < inside.numel()
        for gradient in gradients:
            moved = gradient[i].abs().sum(0) > 0
            assert torch.equal(moved, inside)


def test_the_semantic_head_reads_the_backbone_and_inference_does_not_need_it(model, make_record):
    seen = _spied(model)
    losses = model.train()([make_record(), make_record()])
    assert seen[2].shape == (2, 134, 17, 17)
    losses["loss_semantic"].backward()
    reached = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert reached == {"backbone", "semantic_head"}
    model.semantic_head = None
    with torch.no_grad():
        assert len(model.eval()([make_record()])) == 1


def test_bfloat16_autocast_trains(tiny_model, make_record):
    model, records = tiny_model(COCO, EVERY_PIXEL).train(), [make_record(3), make_record(0)]
    exact = model(records)
    seen = _spied(model)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(records)
    assert seen[0][-1].mask_logits.dtype == torch.bfloat16  # it is not computed in full precision
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.1, abs=1e-3), name
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_bfloat16_autocast_predicts(tiny_model, make_record):
    model = tiny_model(COCO, {TASKS: ["panoptic", "semantic", "instance"]}).eval()
    [record] = _images([make_record()])
    with torch.no_grad():
        [exact] = model([record])
        with torch.autocast("cpu", torch.bfloat16):
            [result] = model([record])
    found, expected = result["sem_seg"].float(), exact["sem_seg"]
    assert (found - expected).norm() < 0.2 * expected.norm()


def _images(records):
    return [{"image": record["image"]} for record in records]


@pytest.mark.parametrize(("size", "height", "width"), [((65, 65), 17, 17), ((129, 193), 33, 49)])
def test_raw_outputs(model, size, height, width):
    model.eval()
    with torch.no_grad():
        outputs = model.raw_outputs(torch.randn(2, 3, *size))
    assert outputs["pred_logits"].shape == (2, 7, 134)
    assert outputs["pred_masks"].shape == (2, 7, height, width)
    assert outputs["pixel_feature"].shape == (2, 16, height, width)
    assert len(outputs["aux_outputs"]) == 3
    for layer, stride in zip(outputs["aux_outputs"], (32, 16, 8), strict=True):
        coarse = tuple((side - 1) // stride + 1 for side in size)
        assert layer["pred_logits"].shape == (2, 7, 134)
        assert layer["pred_masks"].shape == (2, 7, *coarse)
        assert layer["pixel_feature"].shape == (2, 16, *coarse)


def test_images_are_padded_to_where_corners_meet(model):
    for size in ((641, 641), (1025, 2049), (1281, 1281), (65, 129)):
        assert model.padded_image_size(size) == size
    assert model.padded_image_size((640, 642)) == (641, 705)
    assert model.padded_image_size((1, 66)) == (65, 129)
    with torch.no_grad():
        maps = model.eval().raw_outputs(torch.zeros(1, 3, *model.padded_image_size((60, 150))))
    assert all(layer["pred_masks"].shape[-1] % 2 == 1 for layer in maps["aux_outputs"])


def test_smaller_images_are_padded_to_the_size_of_the_published_models(model):
    model.padded_size = (129, 193)
    assert model.padded_image_size((129, 193)) == model.padded_image_size((1, 1)) == (129, 193)
    assert model.padded_image_size((130, 100)) == (193, 129)  # too high for it
    images = model.prepare_images([{"image": torch.full((3, 40, 50), 255, dtype=torch.uint8)}])
    assert images.tensor.shape == (1, 3, 129, 193)
    assert (images.tensor[0, :, :40, :50] == 1).all()
    assert images.tensor.sum() == 3 * 40 * 50  # zeros after normalising


@pytest.mark.parametrize("step", [64, 32, 16, 1])
def test_the_largest_image_fits_the_tables(model, step):
    model.size_divisibility = step
    limit = {64: 4033}.get(step, 4065)
    height, width = model.padded_image_size((limit, 20))
    assert (height - 1) // 16 + 1 <= MAX_LENGTH
    assert width < 100
    told = rf"an image of 20 x {limit + 1} pixels .* no side may be longer than {limit} pixels"
    with pytest.raises(ValueError, match=told):
        model.padded_image_size((20, limit + 1))
    with pytest.raises(ValueError, match=rf"an image of {limit + 1} x 20 pixels"):
        model.padded_image_size((limit + 1, 20))


def test_an_image_beyond_the_tables_is_refused_before_any_work(model, make_record):
    told = r"an image of 20 x 4034 pixels is padded to 65 x 4097, .*255 positions at stride 16"
    with pytest.raises(ValueError, match=told):
        model.eval()([{"image": torch.zeros(3, 20, 4034, dtype=torch.uint8)}])
    with pytest.raises(ValueError, match=told):
        model.train()([make_record(), make_record(size=(20, 4034))])
    model.padded_size = (4097, 65)
    with pytest.raises(ValueError, match=r"an image of 9 x 9 pixels is padded to 4097 x 65"):
        model.padded_image_size((9, 9))


def test_direct_use_beyond_the_tables_is_refused_by_the_attention(model):
    with pytest.raises(ValueError, match="axial attention reaches 255 positions along an axis"):
        model.eval().raw_outputs(torch.zeros(1, 3, 33, 4097))


def test_any_size_is_served_by_the_same_weights(model):
    _random_norms(model).eval()
    for size in ((97, 300), (300, 97), (257, 65)):
        with torch.no_grad():
            [result] = model([{"image": torch.zeros(3, *size, dtype=torch.uint8)}])
        assert result["panoptic_seg"][0].shape == size


RESULTS = {"panoptic": "panoptic_seg", "instance": "instances", "semantic": "sem_seg"}


@pytest.mark.parametrize("tasks", [["panoptic"], ["instance"], ["semantic"], ["box"], [*RESULTS]])
def test_results_of_the_tasks(tiny_model, make_record, tasks):
    model = _random_norms(tiny_model(COCO, {TASKS: tasks})).eval()
    model.thing_classes, model.thresholds = {1, 4}, (0.0, 0.0, 0.1, 0.5)
    records = _images([make_record(size=(48, 64)), make_record(size=(40, 130))])
    records[0].update(height=96, width=128)
    with torch.no_grad():
        results = model(records)
    for result, size in zip(results, [(96, 128), (40, 130)], strict=True):
        assert set(result) == {RESULTS.get(task, "instances") for task in tasks}
        if "panoptic" in tasks:
            ids, segments = result["panoptic_seg"]
            assert ids.shape == size
            assert segments != []
            assert set(ids.unique().tolist()) - {0} == {s["id"] for s in segments}
            assert all(s["isthing"] == (s["category_id"] in {1, 4}) for s in segments)
        if "semantic" in tasks:
            assert result["sem_seg"].shape == (133, *size)
        if "instances" in result:
            found = result["instances"]
            assert set(found.pred_classes.tolist()) <= {1, 4}
            assert found.pred_masks.shape[1:] == size
            tight = BitMasks(found.pred_masks).get_bounding_boxes().tensor
            assert torch.equal(found.pred_boxes.tensor, tight)


def test_results_are_cut_from_the_padded_image(tiny_model, make_record):
    model = tiny_model(COCO, {TASKS: ["semantic"]}).eval()
    [record] = _images([make_record(size=(48, 60))])
    with torch.no_grad():
        [result] = model([{**record, "height": 90, "width": 110}])
        raw = model.raw_outputs(model.prepare_images([record]).tensor)
    masks = resize_aligned(raw["pred_masks"], (65, 65))[:, :, :48, :60]
    masks = F.interpolate(masks, (90, 110), mode="bilinear", align_corners=False)[0]
    classes = raw["pred_logits"][0].softmax(-1)[:, :-1]
    expected = torch.einsum("qc,qhw->chw", classes, masks.softmax(0))
    torch.testing.assert_close(result["sem_seg"], expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MATCHER", "fixed", r"MATCHER of KMaXDeepLab must be 'hungarian', not 'fixed'"),
        ("PADDED_SIZE", [641], r"PADDED_SIZE must be \[\] or \[height, width\], not \[641\]"),
        ("PADDED_SIZE", [641, 0], r"PADDED_SIZE must"),
        ("PIXEL_DECODER.NAME", "FPNPixelDecoder", r"\.NAME .* must be 'AxialPixelDecoder', not"),
        ("TRANSFORMER_DECODER.NAME", "StandardDecoder", r"\.NAME .* must be 'KMeansDecoder', not"),
        ("PIXEL_DECODER.IN_FEATURES", ["res3", "res4", "res5"], r"IN_FEATURES .* stride 4, 8, 16"),
        ("PIXEL_DECODER.IN_FEATURES", ["res2", "res3", "p4", "res5"], r"IN_FEATURES names \['p4'"),
        ("PIXEL_DECODER.BLOCKS", [1, 5], r"BLOCKS \[1, 5\] must have .* 4 features"),
        ("LOSS.DEEP_SUPERVISION", False, r"DEEP_SUPERVISION must be True in KMaXDeepLab"),
        ("TRANSFORMER_DECODER.LAYERS", 4, r"LAYERS 4 cannot be shared by 3 levels"),
        ("TRANSFORMER_DECODER.CROSS_ATTENTION", "soft", r"CROSS_ATTENTION is 'soft'; known"),
        ("TRANSFORMER_DECODER.HEADS", 64, r"HEADS 64 must divide half of HIDDEN_DIM 64"),
        ("CLASS_IDS", "dataset", r"CLASS_IDS 'dataset'.*KMaXDeepLab"),
    ],
)
def test_contradictory_values_name_their_key(tiny_model, key, value, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(COCO, {NODE + key: value})


def test_heads_of_the_pixel_decoder_share_its_width_alone(tiny_model):
    part = NODE + "PIXEL_DECODER."
    model = tiny_model(COCO, {part + "HEADS": 3, part + "WIDTH": 48})
    assert model.pixel_decoder.stages[0][0].attention.height.heads == 3
    with pytest.raises(ValueError, match=r"PIXEL_DECODER\.WIDTH is 64.* multiple of 24"):
        tiny_model(COCO, {part + "HEADS": 3})


def test_settings_come_from_the_config(tiny_model):
    test = NODE + "TEST."
    keys = {
        test + "THING_THRESHOLD": 0.6,
        test + "STUFF_THRESHOLD": 0.55,
        test + "PIXEL_THRESHOLD": 0.3,
        test + "OVERLAP_THRESHOLD": 0.75,
        TASKS: ["box"],
        NODE + "PADDED_SIZE": [65, 129],
        "TEST.DETECTIONS_PER_IMAGE": 9,
    }
    model = tiny_model(COCO, keys)
    assert model.thresholds == (0.6, 0.55, 0.3, 0.75)
    assert model.tasks == ("box",)
    assert model.padded_size == (65, 129)
    assert model.detections_per_image == 9
    assert model.pixel_mean.flatten().tolist() == model.pixel_std.flatten().tolist() == [127.5] * 3


def test_outputs_are_those_of_the_official_model(reference, difference):
    outputs, golden = reference(COCO, (960, 1280), padded=(1281, 1281))
    # A pixel as near to one centre as to another falls on either side by rounding: the official
    # outputs themselves move by 1e-4 with the count of threads.
    assert difference(outputs["pred_logits"][0], golden["logits"]) < 1e-3
    assert difference(outputs["pred_masks"][0, :, ::8, ::8], golden["masks"]) < 1e-3
    assert difference(outputs["pixel_feature"][0, :, ::16, ::16], golden["pixel_feature"]) < 1e-3
    auxiliary = [layer["pred_logits"][0].mean(0) for layer in outputs["aux_outputs"]]
    assert difference(torch.stack(auxiliary), golden["aux_logits"]) < 1e-3
