import pytest
import torch

COCO = "maskformer_R50_coco_panoptic"
ADE = "maskformer_R50_ade20k_semantic"
NODE = "MODEL.MASK_TRANSFORMER."


def _step(model, records):
    losses = model.train()(records)
    sum(losses.values()).backward()
    missed = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missed == []
    return losses


@pytest.mark.parametrize("name", [COCO, ADE])
@pytest.mark.parametrize("counts", [(3, 1), (0, 2), (0, 0)])
def test_a_training_step_reaches_every_parameter(tiny_model, make_record, name, counts):
    losses = _step(tiny_model(name), [make_record(n) for n in counts])
    assert all(torch.isfinite(value) for value in losses.values())


def test_training_lowers_the_loss(tiny_model, make_record):
    model, records = tiny_model(COCO), [make_record(2)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        values.append(sum(_step(model, records).values()).item())
        optimizer.step()
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (33, 2)])
def test_images_smaller_than_a_stride(tiny_model, make_record, size):
    model = tiny_model(COCO)
    record = make_record(2, size)
    assert all(torch.isfinite(value) for value in _step(model, [record]).values())
    [result] = model.eval()([{"image": record["image"], "height": 50, "width": 70}])
    assert result["panoptic_seg"][0].shape == (50, 70)


def test_the_panoptic_merge_takes_the_argmax_alone(tiny_model):
    assert tiny_model(COCO).pixel_threshold == 0.0
    assert tiny_model("mask2former_R50_coco_panoptic").pixel_threshold == 0.5


def test_fixed_matching_needs_a_query_for_every_class(tiny_model, make_record):
    with pytest.raises(ValueError, match=r"MATCHER 'fixed' .*QUERIES is 7, NUM_CLASSES is 150"):
        tiny_model(ADE, {NODE + "MATCHER": "fixed"})
    model = tiny_model(
        ADE, {NODE + "MATCHER": "fixed", NODE + "QUERIES": 150, NODE + "NUM_CLASSES": 150}
    )
    _step(model, [make_record(3), make_record(1)])
    with pytest.raises(ValueError, match="several times"):
        model.train()([make_record(4)])


def test_fixed_matching_is_for_semantic_annotations(tiny_model):
    keys = {NODE + "MATCHER": "fixed", NODE + "QUERIES": 133, NODE + "NUM_CLASSES": 133}
    with pytest.raises(ValueError, match=r"INPUT\.ANNOTATIONS must be 'semantic', not 'panoptic'"):
        tiny_model(COCO, keys)


@pytest.mark.parametrize("matcher", ["none", "fixed"])
def test_matchers_that_are_not_there(tiny_model, matcher):
    with pytest.raises(ValueError, match=r"MASK_TRANSFORMER\.MATCHER"):
        tiny_model("mask2former_R50_coco_panoptic", {NODE + "MATCHER": matcher})


def test_outputs_are_those_of_the_official_model(reference, difference):
    found, golden = reference(COCO)
    auxiliary = torch.stack([layer["pred_logits"][0].mean(0) for layer in found["aux_outputs"]])
    assert difference(found["pred_logits"][0], golden["logits"]) < 1e-5
    assert difference(found["pred_masks"][0, :, ::4, ::4], golden["masks"]) < 1e-5
    assert difference(auxiliary, golden["aux_logits"]) < 1e-5
