import torch
import torch.nn.functional as F

from mask_transformers.inference.detr_panoptic import detr_panoptic_inference
from mask_transformers.meta_arch.detr_results import Wanted, image_results

PADDED, IMAGE, OUTPUT = (64, 64), (40, 50), (33, 41)
TASKS = frozenset(["instance", "panoptic"])


def _expected(logits, image=IMAGE):
    """Logits at the size of the image; masks at that of the output."""
    seen = F.interpolate(logits[None], size=PADDED, mode="bilinear")[0, :, : image[0], : image[1]]
    return seen, F.interpolate((seen > 0).float()[None], size=OUTPUT, mode="nearest")[0].bool()


def test_masks_are_cut_out_of_the_padded_image():
    logits = torch.randn(3, 16, 16)
    probabilities = torch.tensor([[0.1, 0.9, 0.0], [0.95, 0.05, 0.0], [0.2, 0.2, 0.6]])
    results = image_results(
        Wanted(TASKS, {0, 1}, 0.85, 2),
        probabilities,
        torch.rand(3, 4),
        lambda few: logits[few],
        PADDED,
        IMAGE,
        OUTPUT,
    )
    seen, masks = _expected(logits)
    assert torch.equal(results["instances"].pred_masks, masks[[1, 0]])  # the surest first
    ids, segments = detr_panoptic_inference(torch.tensor([1, 0]), seen[:2], {0, 1}, OUTPUT)
    assert torch.equal(results["panoptic_seg"][0], ids)
    assert results["panoptic_seg"][1] == segments
    assert [segment["category_id"] for segment in segments] == [1, 0]


def test_the_model_cuts_masks_of_each_image_out_of_what_it_padded(
    tiny_model, make_record, monkeypatch
):
    model = tiny_model("detr_small_shapes_panoptic").eval()
    assert model.size_divisibility == 32
    model.wanted = Wanted(TASKS, set(range(8)), 0.0, 1)
    with torch.no_grad():  # every query sees an object
        model.class_embed.bias[-1] = -99
    logits = torch.randn(2, 7, 16, 16)
    monkeypatch.setattr(model, "masks", lambda scene, image, few: logits[image, few])
    sizes = [IMAGE, (64, 33)]  # which are padded to one size
    records = [
        {"image": make_record(size=size)["image"], "height": OUTPUT[0], "width": OUTPUT[1]}
        for size in sizes
    ]
    with torch.no_grad():
        results = model(records)
    for result, own, size in zip(results, logits, sizes, strict=True):
        seen, masks = _expected(own, size)
        assert (result["instances"].pred_masks == masks).flatten(1).all(1).any()
        classes = torch.arange(7)  # of things, so that they stand for the queries
        ids, _ = detr_panoptic_inference(classes, seen, set(range(7)), OUTPUT)
        assert torch.equal(result["panoptic_seg"][0], ids)
