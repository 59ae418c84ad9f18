import pytest
import torch
import torch.nn.functional as F

NAME = "perpixel_baseline_R50_ade20k_semantic"
NODE = "MODEL.MASK_TRANSFORMER."
PLUS = {NODE + "TRANSFORMER_DECODER.NAME": "StandardDecoder"}


@pytest.mark.parametrize(("keys", "layers"), [({}, 1), (PLUS, 3)])
@pytest.mark.parametrize("counts", [(3, 1), (0, 2), (0, 0)])
def test_a_training_step_reaches_every_parameter(tiny_model, make_record, keys, layers, counts):
    model = tiny_model(NAME, keys).train()
    losses = model([make_record(n) for n in counts])
    assert set(losses) == {"loss_sem_seg", *(f"loss_sem_seg_{i}" for i in range(layers - 1))}
    sum(losses.values()).backward()
    missed = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missed == []
    assert all(torch.isfinite(value) for value in losses.values())


def test_the_loss_is_the_cross_entropy_of_labelled_pixels(tiny_model, make_record):
    model = tiny_model(NAME, {NODE + "SIZE_DIVISIBILITY": 0}).train()
    record = make_record(2, (48, 64))
    masks = record["instances"].gt_masks.tensor
    masks[1] &= ~masks[0]
    [value] = model([record]).values()
    with torch.no_grad():
        logits = model.raw_outputs(model.prepare_images([record]).tensor)["pred_masks"]
        logits = F.interpolate(logits, (48, 64), mode="bilinear", align_corners=False)[0]
    by_pixel = -logits.log_softmax(0)
    expected = torch.cat([by_pixel[0][masks[0]], by_pixel[1][masks[1]]]).mean()
    torch.testing.assert_close(value, expected)


def test_results_are_resized_logits(tiny_model, make_record):
    model = tiny_model(NAME).eval()
    image = make_record(size=(48, 64))["image"]
    with torch.no_grad():
        [result] = model([{"image": image, "height": 30, "width": 50}])
        raw = model.raw_outputs(model.prepare_images([{"image": image}]).tensor)["pred_masks"]
    resize = {"mode": "bilinear", "align_corners": False}
    cut = F.interpolate(raw, (64, 64), **resize)[:, :, :48]
    torch.testing.assert_close(result["sem_seg"], F.interpolate(cut, (30, 50), **resize)[0])


def test_only_the_last_layer_without_deep_supervision(tiny_model, make_record):
    model = tiny_model(NAME, {**PLUS, NODE + "LOSS.DEEP_SUPERVISION": False}).train()
    assert set(model([make_record()])) == {"loss_sem_seg"}
    assert len(model.eval().raw_outputs(torch.zeros(1, 3, 32, 32))["aux_outputs"]) == 2


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({NODE + "TRANSFORMER_DECODER.NAME": "MaskedAttentionDecoder"}, "not 'MaskedAtt"),
        ({NODE + "TEST.TASKS": ["panoptic"]}, r"TASKS of PerPixelBaseline: \['semantic'\]"),
        ({NODE + "TEST.TASKS": ["semantic", "box"]}, r"TASKS of PerPixelBaseline: \['semantic'\]"),
        ({"INPUT.ANNOTATIONS": "box"}, "'box', but this PerPixelBaseline learns masks"),
    ],
)
def test_what_does_not_fit_is_named(tiny_model, keys, words):
    with pytest.raises(ValueError, match=words):
        tiny_model(NAME, keys)
