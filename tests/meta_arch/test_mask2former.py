import numpy as np
import pytest
import torch

from mask_transformers import model_zoo

COCO = "mask2former_R50_coco_panoptic"
TASKS = "MODEL.MASK_TRANSFORMER.TEST.TASKS"


def _step(model, records):
    losses = model.train()(records)
    sum(losses.values()).backward()
    return losses


def _assert_all_reached(model):
    unreached = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unreached == []
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def _images(records):
    return [{"image": record["image"]} for record in records]


@pytest.mark.parametrize("counts", [(3, 1), (0, 2), (0, 0)])
def test_a_training_step_reaches_every_parameter(tiny_model, make_record, counts):
    model = tiny_model()
    losses = _step(model, [make_record(n) for n in counts])
    assert len(losses) == 3 * 4  # three layers and the raw queries
    assert all(torch.isfinite(value) for value in losses.values())
    _assert_all_reached(model)


def test_training_lowers_the_loss(tiny_model, make_record):
    model, records = tiny_model(), [make_record(2)]
    records[0]["instances"].gt_masks.tensor[:] = False
    records[0]["instances"].gt_masks.tensor[0, :24] = True
    records[0]["instances"].gt_masks.tensor[1, 24:] = True
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(15):
        optimizer.zero_grad()
        totals.append(sum(_step(model, records).values()).item())
        optimizer.step()
    assert totals[-1] < 0.7 * totals[0]


def test_single_pixel_masks_train(tiny_model, make_record):
    model, record = tiny_model(), make_record(2)
    record["instances"].gt_masks.tensor[:] = False
    record["instances"].gt_masks.tensor[:, 7, 9] = True
    _step(model, [record])
    _assert_all_reached(model)


def test_more_instances_than_queries_train(tiny_model, make_record):
    model = tiny_model(keys={"MODEL.MASK_TRANSFORMER.QUERIES": 3})
    _step(model, [make_record(12), make_record(1)])
    _assert_all_reached(model)


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (33, 2)])
@pytest.mark.parametrize("divisibility", [32, 0])
def test_images_smaller_than_a_stride(tiny_model, make_record, size, divisibility):
    model = tiny_model(keys={"MODEL.MASK_TRANSFORMER.SIZE_DIVISIBILITY": divisibility})
    record = make_record(2, size)
    losses = _step(model, [record])
    assert all(torch.isfinite(value) for value in losses.values())
    [result] = model.eval()([{"image": record["image"], "height": 50, "width": 70}])
    assert result["panoptic_seg"][0].shape == (50, 70)
    assert result["sem_seg"].shape == (133, 50, 70)
    assert result["instances"].image_size == (50, 70)


def test_nan_predictions_stop_training_and_name_the_image(tiny_model, make_record):
    model = tiny_model()
    records = [make_record(name="good.png"), make_record(name="bad.png")]
    records[1]["image"] = torch.full((3, 48, 64), float("nan"))
    with pytest.raises(FloatingPointError, match=r"bad\.png"):
        model.train()(records)


def test_without_deep_supervision(tiny_model, make_record):
    model = tiny_model(keys={"MODEL.MASK_TRANSFORMER.LOSS.DEEP_SUPERVISION": False})
    assert set(_step(model, [make_record()])) == {"loss_ce", "loss_mask", "loss_dice"}
    _assert_all_reached(model)


def test_bfloat16_autocast_trains(tiny_model, make_record):
    model = tiny_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model([make_record(3), make_record(0)])
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(value.dtype == torch.float32 for value in losses.values())
    sum(losses.values()).backward()
    _assert_all_reached(model)


def test_bfloat16_autocast_predicts(tiny_model, make_record):
    model = tiny_model().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        [result] = model(_images([make_record()]))
    assert torch.isfinite(result["sem_seg"].float()).all()


def test_raw_outputs(tiny_model):
    model = tiny_model().eval()
    with torch.no_grad():
        outputs = model.raw_outputs(torch.randn(2, 3, 64, 96))
    assert outputs["pred_logits"].shape == (2, 7, 134)
    assert outputs["pred_masks"].shape == (2, 7, 16, 24)
    assert outputs["pixel_features"].mask_features.shape == (2, 16, 16, 24)
    assert len(outputs["aux_outputs"]) == 3
    for layer in outputs["aux_outputs"]:
        assert layer["pred_logits"].shape == (2, 7, 134)
        masks = outputs["pixel_features"].predict_masks(layer["mask_embeddings"])
        assert masks.shape == outputs["pred_masks"].shape


def test_a_batch_of_one_size_gives_what_its_images_give_alone(tiny_model):
    model = tiny_model().eval()
    images = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        batched = model.raw_outputs(images)
        for i in range(3):
            alone = model.raw_outputs(images[i : i + 1])
            for name in ("pred_logits", "pred_masks"):
                torch.testing.assert_close(batched[name][i], alone[name][0], rtol=1e-4, atol=1e-4)


def test_padding_is_seen_as_in_the_official_code(tiny_model):
    model = tiny_model().eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        alone = model.raw_outputs(image)["pred_logits"]
        padded = model.raw_outputs(torch.nn.functional.pad(image, (0, 64)))["pred_logits"]
    assert not torch.allclose(alone, padded, atol=1e-3)


def test_results_have_the_size_asked_for(tiny_model, make_record):
    model = tiny_model().eval()
    records = _images([make_record(size=(48, 64)), make_record(size=(40, 30))])
    records[0].update(height=96, width=128)
    with torch.no_grad():
        results = model(records)
    for result, size in zip(results, [(96, 128), (40, 30)], strict=True):
        ids, segments = result["panoptic_seg"]
        assert ids.shape == size
        assert set(ids.unique().tolist()) - {0} == {s["id"] for s in segments}
        assert result["sem_seg"].shape == (133, *size)
        assert result["instances"].pred_masks.shape[1:] == size


def test_semantic_models_resize_scores_as_the_official_code_does(tiny_model, make_record):
    model = tiny_model("mask2former_R50_ade20k_semantic").eval()
    [record] = _images([make_record(size=(48, 64))])
    with torch.no_grad():
        [result] = model([{**record, "height": 90, "width": 110}])
        raw = model.raw_outputs(model.prepare_images([record]).tensor)
    resize = {"mode": "bilinear", "align_corners": False}
    masks = torch.nn.functional.interpolate(raw["pred_masks"], (64, 64), **resize)
    classes = raw["pred_logits"][0].softmax(-1)[:, :-1]
    scores = torch.einsum("qc,qhw->chw", classes, masks[0, :, :48, :64].sigmoid())
    expected = torch.nn.functional.interpolate(scores[None], (90, 110), **resize)[0]
    torch.testing.assert_close(result["sem_seg"], expected)


def test_an_image_in_which_no_query_is_sure(tiny_model, make_record):
    model = tiny_model(keys={TASKS: ["panoptic"]}).eval()
    with torch.no_grad():
        model.transformer_decoder.class_embed.bias[-1] = 100
        [result] = model(_images([make_record()]))
    ids, segments = result["panoptic_seg"]
    assert set(result) == {"panoptic_seg"}
    assert ids.shape == (48, 64)
    assert segments == []


@pytest.mark.parametrize(
    ("task", "result"),
    [
        ("panoptic", "panoptic_seg"),
        ("instance", "instances"),
        ("semantic", "sem_seg"),
        ("box", "instances"),
    ],
)
def test_only_needed_queries_are_upsampled_without_changing_results(
    tiny_model, make_record, task, result
):
    model = tiny_model(keys={TASKS: [task], "TEST.DETECTIONS_PER_IMAGE": 4}).eval()
    model.object_mask_threshold = 0.05
    model.thing_classes = None
    torch.nn.init.normal_(model.transformer_decoder.class_embed.weight)
    records = _images([make_record()])
    with torch.no_grad():
        fast = model(records)[0]
        model._used_queries = lambda logits: torch.arange(len(logits))
        slow = model(records)[0]
    assert set(fast) == {result}
    if task == "panoptic":
        assert fast[result][1] == slow[result][1] != []
        assert torch.equal(fast[result][0], slow[result][0])
    elif result == "instances":
        assert len(fast[result]) == 4
        torch.testing.assert_close(fast[result].scores, slow[result].scores)
        assert torch.equal(fast[result].pred_masks, slow[result].pred_masks)
    else:
        torch.testing.assert_close(fast[result], slow[result])


def test_panoptic_models_give_instances_of_things_only(tiny_model, make_record):
    model = tiny_model(keys={TASKS: ["panoptic", "instance"]}).eval()
    model.thing_classes = {4, 5}
    with torch.no_grad():
        [result] = model(_images([make_record()]))
    assert set(result["instances"].pred_classes.tolist()) <= {4, 5}


def test_outputs_are_those_of_the_official_model(shared):
    from mask_transformers.checkpoint import load_official_state_dict

    fill = _module(shared / "parity/fill.py")
    model = model_zoo.build(COCO)
    state = fill.pytorch_checkpoint(shared / f"parity/manifests/{COCO}.tsv")
    report = load_official_state_dict(model, state)
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], [])
    image = (fill.image() - _channels(123.675, 116.28, 103.53)) / _channels(58.395, 57.12, 57.375)
    with torch.no_grad():
        outputs = model.raw_outputs(image[None])
    golden = np.load(shared / f"parity/golden/{COCO}.npz")
    auxiliary = [layer["pred_logits"][0].mean(0) for layer in outputs["aux_outputs"]]
    # A pixel on the threshold of an attention mask falls on either side by rounding: one that does
    # moves these by 1e-5, with another count of threads or another layout in memory.
    assert _difference(outputs["pred_logits"][0], golden["logits"]) < 1e-4
    assert _difference(outputs["pred_masks"][0, :, ::4, ::4], golden["masks"]) < 1e-4
    assert _difference(torch.stack(auxiliary), golden["aux_logits"]) < 1e-5


def _channels(*values):
    return torch.tensor(values).view(3, 1, 1)


def _difference(found, expected):
    return np.linalg.norm(found.numpy() - expected) / np.linalg.norm(expected - expected.mean())


def _module(path):
    import importlib.util

    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
