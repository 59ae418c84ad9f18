import pytest
import torch
from detectron2.modeling import build_model

from mask_transformers.layers.conv_norm import SyncNorm

S, L = "max_deeplab_S_coco_panoptic", "max_deeplab_L_coco_panoptic"
NODE = "MODEL.MASK_TRANSFORMER."
RESNET = "MODEL.MAX_RESNET."
EVERY_PIXEL = {NODE + "LOSS.POINTS": 10_000}  # nothing is drawn by chance


def _random_norms(model):
    """As after some training: branches that started from nothing count, norms differ."""
    for module in model.modules():
        if isinstance(module, SyncNorm) and len(module.weight) > 1:
            torch.nn.init.uniform_(module.weight, 0.5, 1)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model


def _step(model, records):
    losses = model.train()(records)
    sum(losses.values()).backward()
    return losses


@pytest.mark.parametrize("name", [S, L])
@pytest.mark.parametrize("counts", [(3, 1), (0, 2), (0, 0)])
def test_a_training_step_reaches_every_parameter(tiny_model, make_record, counts, name):
    model = _random_norms(tiny_model(name))
    losses = _step(model, [make_record(n) for n in counts])
    assert set(losses) == {f"loss_{k}" for k in ("ce", "mask_id", "dice", "pixel", "semantic")}
    assert all(torch.isfinite(value) for value in losses.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_training_lowers_the_loss(tiny_model, make_record):
    model = tiny_model(S)
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


@pytest.mark.parametrize("name", [S, L])
def test_losses_do_not_depend_on_activation_checkpointing(tiny_config, make_record, name):
    records = [make_record(2), make_record(1)]
    gradients = []
    state = None
    for saving in (False, True):
        keys = {**EVERY_PIXEL, RESNET + "ACTIVATION_CHECKPOINTING": saving}
        model = _random_norms(build_model(tiny_config(name, keys)))
        state = state or {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(state)
        losses = _step(model, records)
        gradients.append([p.grad for p in model.parameters()])
    assert losses
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [S, L])
@pytest.mark.parametrize("size", [(49, 65), (65, 33)])
def test_raw_outputs(tiny_model, name, size):
    model = _random_norms(tiny_model(name)).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        outputs = model.raw_outputs(images)
        single = model.raw_outputs(images[1:])
    height, width = (size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1
    assert {k: tuple(v.shape) for k, v in outputs.items() if k != "aux_outputs"} == {
        "pred_logits": (2, 7, 134),
        "pred_masks": (2, 7, height, width),
        "pixel_feature": (2, 16, height, width),
        "semantic": (2, 134, height, width),
    }
    assert outputs["aux_outputs"] == []
    lengths = outputs["pixel_feature"].norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    for key in ("pred_logits", "pred_masks", "pixel_feature", "semantic"):
        torch.testing.assert_close(outputs[key][1:], single[key], rtol=1e-3, atol=1e-4)


def test_the_semantic_head_does_not_share_the_features_of_masks(tiny_model):
    """In S it reads the backbone, in L the first map with stride 4 of the decoder."""
    images = torch.randn(1, 3, 49, 65)
    for name, blind in ((S, ["decoder"]), (L, ["decoder.steps.2", "decoder.steps.5"])):
        model = _random_norms(tiny_model(name)).eval()
        with torch.no_grad():
            before = model.raw_outputs(images)
            for part in blind:
                for parameter in model.get_submodule(part).parameters():
                    parameter.add_(torch.randn_like(parameter))
            after = model.raw_outputs(images)
            assert torch.equal(before["semantic"], after["semantic"])
            assert not torch.allclose(before["pixel_feature"], after["pixel_feature"])
        first = "backbone.stages.res5" if name == S else "decoder.steps.1"
        with torch.no_grad():
            for parameter in model.get_submodule(first).parameters():
                parameter.add_(torch.randn_like(parameter))
            assert not torch.allclose(model.raw_outputs(images)["semantic"], before["semantic"])


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (48, 64), (49, 65), (50, 31)])
def test_images_of_any_size(tiny_model, size):
    model = tiny_model(S).eval()
    height, width = model.padded_image_size(size)
    assert height % 16 == width % 16 == 1
    assert min(height, width) > 16
    assert size[0] <= height < size[0] + 17
    with torch.no_grad():
        [result] = model([{"image": torch.randint(0, 256, (3, *size)).float()}])
    assert result["panoptic_seg"][0].shape == size


def test_a_fixed_padded_size(tiny_model):
    model = tiny_model(S, {NODE + "PADDED_SIZE": [97, 97]})
    assert model.padded_image_size((48, 64)) == (97, 97)
    assert model.padded_image_size((98, 64)) == (113, 65)


@pytest.mark.parametrize("mask_wise", [False, True])
def test_both_kinds_of_panoptic_inference(tiny_model, mask_wise):
    keys = {NODE + "TEST.MASK_WISE": mask_wise, NODE + "TEST.PIXEL_THRESHOLD": 0.3}
    keys |= {NODE + "TEST.THING_THRESHOLD": 0.6, NODE + "TEST.STUFF_THRESHOLD": 0.5}
    keys |= {NODE + "TEST.THING_AREA": 20.0, NODE + "TEST.STUFF_AREA": 30.0}
    arguments = tiny_model(S, keys).panoptic_inference.keywords
    same = {"thing_threshold": 0.6, "stuff_threshold": 0.5, "pixel_threshold": 0.3}
    areas = {"thing_area": 20.0, "stuff_area": 30.0}
    assert arguments == same | ({"overlap_threshold": 0.8} if mask_wise else areas)
    model = tiny_model(S, keys)
    logits = torch.full((7, 134), -9.0)
    logits[0, 3] = logits[1, 100] = 9.0
    logits[2:, -1] = 9.0
    masks = torch.zeros(7, 64, 64)
    masks[0, :32] = masks[1, 32:] = 30.0
    ids, segments = model.panoptic(logits, masks, {3})
    assert {s["category_id"]: s["isthing"] for s in segments} == {3: True, 100: False}
    assert ids.unique(return_counts=True)[1].tolist() == [2048, 2048]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.BACKBONE.NAME"),
        (NODE + "MATCHER", "fixed", "MATCHER"),
        (NODE + "SIZE_DIVISIBILITY", 24, "SIZE_DIVISIBILITY"),
        (NODE + "PADDED_SIZE", [17], "PADDED_SIZE"),
        (NODE + "PADDED_SIZE", [64, 65], "PADDED_SIZE.* more than a multiple of 16"),
        (NODE + "TEST.THING_AREA", -1.0, "THING_AREA"),
        (NODE + "TEST.STUFF_AREA", -1.0, "STUFF_AREA"),
        (NODE + "TRANSFORMER_DECODER.MASK_SCALE", -1.0, "MASK_SCALE"),
        (RESNET + "HEADS", 0, "MAX_RESNET.HEADS 0"),
        (NODE + "TRANSFORMER_DECODER.HEADS", 64, "HEADS 64"),
        (RESNET + "BLOCK", "wide", "MAX_RESNET.BLOCK .*'wide'"),
        (RESNET + "BLOCKS", [1, 2], "MAX_RESNET.BLOCKS"),
        (RESNET + "DECODER_BLOCKS", 0, "DECODER_BLOCKS"),
        (RESNET + "STACKS", -1, "STACKS"),
        (RESNET + "TRANSFORMER_STAGES", ["res4"], "TRANSFORMER_STAGES"),
        (RESNET + "WIDTH", 3, "WIDTH 3"),
        (RESNET + "DROP_PATH_RATE", 1.0, "DROP_PATH_RATE"),
    ],
)
def test_contradictory_keys_are_refused(tiny_config, key, value, message):
    cfg = tiny_config(S)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        build_model(cfg)


def test_other_systems_cannot_take_the_backbone(tiny_config):
    cfg = tiny_config("mask2former_R50_coco_panoptic")
    cfg.MODEL.BACKBONE.NAME = "build_max_resnet_backbone"
    with pytest.raises(ValueError, match=r"MODEL.BACKBONE.NAME.*takes memory"):
        build_model(cfg)


def test_drop_path_and_checkpointing_reach_the_blocks(tiny_config):
    keys = {RESNET + "DROP_PATH_RATE": 0.25, RESNET + "ACTIVATION_CHECKPOINTING": True}
    model = build_model(tiny_config(S, keys))
    stage = model.backbone.stages["res5"]
    for part in (*stage.blocks, *stage.transformers, *model.decoder.first.transformers):
        assert part.drop_path.drop_prob == 0.25
    assert all(block.drop_path.drop_prob == 0 for block in model.backbone.stages["res4"].blocks)
    assert stage.activation_checkpointing
    assert not model.backbone.stages["res3"].activation_checkpointing


def test_values_of_the_config_arrive(tiny_config):
    keys = {
        NODE + "TRANSFORMER_DECODER.MASK_SCALE": 0.5,
        NODE + "TEST.PIXEL_THRESHOLD": 0.3,
        NODE + "SIZE_DIVISIBILITY": 48,
        "TEST.DETECTIONS_PER_IMAGE": 7,
    }
    model = build_model(tiny_config(S, keys))
    assert model.predictor.mask_norm.weight.item() == 0.5
    assert (model.pixel_threshold, model.detections_per_image) == (0.3, 7)
    assert model.padded_image_size((50, 20)) == (97, 49)
