import torch
import torch.nn.functional as F

from mask_transformers.inference.detr_panoptic import detr_panoptic_inference
from mask_transformers.meta_arch.detr_results import Wanted, image_results

PADDED, IMAGE, OUTPUT = (64, 64), (40, 50), (33, 41)


def _expected(logits):
    """Logits at the size of the image; masks at that of the output."""
    seen = F.interpolate(logits[None], size=PADDED, mode="bilinear")[0, :, : IMAGE[0], : IMAGE[1]]
    return seen, F.interpolate((seen > 0).float()[None], size=OUTPUT, mode="nearest")[0].bool()


def test_masks_are_cut_out_of_the_padded_image():
    logits = torch.randn(3, 16, 16)
    probabilities = torch.tensor([[0.1, 0.9, 0.0], [0.95, 0.05, 0.0], [0.2, 0.2, 0.6]])
    wanted = Wanted(frozenset(["instance", "panoptic"]), {0, 1}, 0.85, 2)
    results = image_results(
        wanted, probabilities, torch.rand(3, 4), lambda few: logits[few], PADDED, IMAGE, OUTPUT
    )
    seen, masks = _expected(logits)
    assert torch.equal(results["instances"].pred_masks, masks[[1, 0]])  # the surest first
    ids, segments = detr_panoptic_inference(torch.tensor([1, 0]), seen[:2], {0, 1}, OUTPUT)
    assert torch.equal(results["panoptic_seg"][0], ids)
    assert results["panoptic_seg"][1] == segments
    assert [segment["category_id"] for segment in segments] == [1, 0]


def test_the_model_cuts_masks_out_of_what_it_padded(tiny_model, make_record, monkeypatch):
    model = tiny_model("detr_small_shapes_panoptic").eval()
    assert model.size_divisibility == 32
    model.wanted = Wanted(frozenset(["instance", "panoptic"]), set(range(8)), 0.0, 1)
    with torch.no_grad():  # every query sees an object
        model.class_embed.bias[-1] = -99
    logits = torch.randn(7, 16, 16)
    asked = []
    monkeypatch.setattr(model, "masks", lambda s, i, few: asked.append(few) or logits[few])
    record = {"image": make_record(size=IMAGE)["image"], "height": OUTPUT[0], "width": OUTPUT[1]}
    with torch.no_grad():
        [result] = model([record])
    seen, masks = _expected(logits)
    assert torch.cat(asked).tolist() == list(range(7))
    assert (result["instances"].pred_masks == masks).flatten(1).all(1).any()
    classes = torch.arange(7)  # of things, so that they stand for the queries
    ids, _ = detr_panoptic_inference(classes, seen, set(range(7)), OUTPUT)
    assert torch.equal(result["panoptic_seg"][0], ids)
