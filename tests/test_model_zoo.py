import pytest
import torch

from mask_transformers import model_zoo
from mask_transformers.data.annotations import READERS

NAMES = model_zoo.names()


@pytest.mark.parametrize("name", NAMES)
def test_every_model_trains_one_step_and_predicts_in_miniature(
    name, tiny_config, tiny_model, make_record
):
    model = tiny_model(name)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    # Branches that end in a norm of weight zero learn from the second step on.
    for _ in range(2 if name.startswith(("kmax", "max_deeplab")) else 1):
        optimizer.zero_grad()
        losses = model.train()([make_record(2), make_record(1)])
        sum(losses.values()).backward()
        optimizer.step()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p).all() for p in trained.values())
    assert [n for n, p in trained.items() if p.grad is None or torch.equal(p, before[n])] == []
    with torch.no_grad():
        [result] = model.eval()([{"image": make_record()["image"], "height": 30, "width": 40}])
    results = {"panoptic": "panoptic_seg", "semantic": "sem_seg"}
    results |= {"instance": "instances", "box": "instances"}
    node = tiny_config(name).MODEL.MASK_TRANSFORMER
    assert set(result) == {results[task] for task in node.TEST.TASKS}
    if "sem_seg" in result:
        assert result["sem_seg"].shape == (node.NUM_CLASSES, 30, 40)


@pytest.mark.parametrize("name", NAMES)
def test_results_are_those_of_the_task_in_the_name(name, tiny_config):
    cfg = tiny_config(name)
    last = name.rsplit("_", 1)[1]
    task = last if last in READERS else "box"  # as in detr_R50_coco
    assert task in cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS
    assert task == cfg.INPUT.ANNOTATIONS


def test_the_names_that_must_exist():
    wanted = {
        f"mask2former_{r}_coco_{t}" for r in ("R50", "R101") for t in ("panoptic", "instance")
    }
    wanted |= {"mask2former_R50_ade20k_semantic", "mask2former_small_shapes_panoptic"}
    assert wanted <= set(NAMES)
    assert sorted(NAMES) == NAMES
    assert set(model_zoo.PUBLISHED) <= set(NAMES)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"'mask2former_R18'.*mask2former_R50_coco_panoptic"):
        model_zoo.get_config("mask2former_R18")


def test_build_gives_a_model_in_evaluation_mode(miniature_zoo):
    model = model_zoo.build(NAMES[0])
    assert not model.training
    assert next(model.parameters()).device.type == "cpu"


def test_build_loads_a_file(miniature_zoo, tiny_model, official_state, tmp_path):
    source = tiny_model()
    torch.save({"model": official_state(source)}, tmp_path / "weights.pth")
    name = "mask2former_R50_coco_panoptic"
    model = model_zoo.build(name, weights=tmp_path / "weights.pth")
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def test_build_with_a_file_that_is_not_there(miniature_zoo, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        model_zoo.build(NAMES[0], weights=tmp_path / "none.pth")


def test_nothing_is_published_for_the_small_model(miniature_zoo):
    with pytest.raises(KeyError, match=r"mask2former_small_shapes_panoptic.*there are some for"):
        model_zoo.build("mask2former_small_shapes_panoptic", weights="published")


def test_what_is_published_but_cannot_be_fetched(miniature_zoo):
    with pytest.raises(KeyError, match=r"'kmax_R50_coco_panoptic' cannot be fetched.*the path"):
        model_zoo.build("kmax_R50_coco_panoptic", weights="published")


@pytest.fixture
def miniature_zoo(tiny_config, monkeypatch):
    monkeypatch.setattr(model_zoo, "get_config", tiny_config)
