import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask_transformers import model_zoo
from mask_transformers.prediction.augmented_semantic import AugmentedSemantic

SEMANTIC = "mask2former_R50_ade20k_semantic"


class ColumnModel(nn.Module):
    """Scores: the red channel, and how far left a pixel lies in the image that the model sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, batched_inputs):
        [record] = batched_inputs
        image = record["image"].float()
        self.seen.append(tuple(image.shape[1:]))
        columns = torch.linspace(1, 0, image.shape[2]).expand(image.shape[1:])
        scores = torch.stack([image[0], columns])[None]
        size = (record["height"], record["width"])
        return [{"sem_seg": F.interpolate(scores, size=size, mode="bilinear")[0]}]


@pytest.fixture
def record():
    image = torch.randint(0, 256, (3, 32, 48), dtype=torch.uint8)
    return {"image": image, "height": 64, "width": 96, "file_name": "a.jpg"}


def augmented(model, min_sizes, flip, max_size=1000):
    return AugmentedSemantic(model=model, min_sizes=min_sizes, max_size=max_size, flip=flip)


def test_one_scale_without_mirroring_is_plain_inference(tiny_model, record):
    model = tiny_model(SEMANTIC).eval()
    with torch.no_grad():
        [plain] = model([record])
    [result] = augmented(model, [32], flip=False)([record])
    assert torch.equal(result["sem_seg"], plain["sem_seg"])


def test_mirrored_scores_are_mirrored_back(record):
    [plain] = ColumnModel()([record])
    [result] = augmented(ColumnModel(), [32], flip=True)([record])
    # What follows the content stays; what follows the columns is levelled out.
    assert torch.allclose(result["sem_seg"][0], plain["sem_seg"][0], atol=1e-3)
    assert torch.allclose(result["sem_seg"][1], torch.full((64, 96), 0.5), atol=1e-5)


def test_mean_over_the_scales_at_the_size_asked_for(record):
    model = ColumnModel()
    [result] = augmented(model, [16, 32, 64], flip=False, max_size=60)([record])
    assert model.seen == [(16, 24), (32, 48), (40, 60)]
    single = [
        augmented(ColumnModel(), [size], flip=False, max_size=60)([record])[0]["sem_seg"]
        for size in (16, 32, 64)
    ]
    assert result["sem_seg"].shape == (2, 64, 96)
    assert torch.allclose(result["sem_seg"], sum(single) / 3, atol=1e-3)


def test_a_record_without_output_size_gets_that_of_its_image(record):
    del record["height"], record["width"]
    [result] = augmented(ColumnModel(), [16, 64], flip=True)([record])
    assert result["sem_seg"].shape == (2, 32, 48)


def test_several_records(record):
    results = augmented(ColumnModel(), [32], flip=False)([record, {**record, "height": 10}])
    assert [r["sem_seg"].shape[1] for r in results] == [64, 10]


def test_the_keys_of_the_config():
    cfg = model_zoo.get_config(SEMANTIC)
    cfg.TEST.AUG.FLIP = False
    model = AugmentedSemantic(cfg, ColumnModel())
    assert len(model.resizes) == 6
    assert model.flip is False


@pytest.mark.parametrize(("sizes", "largest"), [([], 10), ([0, 5], 10), ([5], 0)])
def test_impossible_sizes(sizes, largest):
    with pytest.raises(ValueError, match=r"TEST\.AUG needs MIN_SIZES"):
        augmented(ColumnModel(), sizes, flip=False, max_size=largest)


def test_a_model_of_another_task(record):
    class Panoptic(nn.Module):
        def forward(self, batched_inputs):
            return [{"panoptic_seg": None}]

    with pytest.raises(ValueError, match=r"gives only \['panoptic_seg'\].*TEST\.TASKS"):
        augmented(Panoptic(), [32], flip=False)([record])
