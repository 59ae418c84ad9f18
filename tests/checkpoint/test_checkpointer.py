import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor
from torch import nn

from mask_transformers.checkpoint import MaskTransformerCheckpointer


def _values(state):
    return {name: value.numpy() for name, value in state.items()}


def _same(model, other):
    wanted = other.state_dict()
    return all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


@pytest.fixture
def official_file(tmp_path, tiny_model, official_state):
    """A file as the official release has them, and the model it was made from."""
    source = tiny_model()
    content = {"model": _values(official_state(source)), "__author__": "the authors"}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(content))
    return tmp_path / "model_final.pkl", source


@pytest.mark.parametrize("checkpointer", [DetectionCheckpointer, MaskTransformerCheckpointer])
def test_checkpointers_load_official_files(official_file, tiny_model, checkpointer):
    path, source = official_file
    target = tiny_model()
    checkpointer(target).load(str(path))
    assert _same(target, source)


@pytest.mark.parametrize("checkpointer", [DetectionCheckpointer, MaskTransformerCheckpointer])
def test_official_files_that_ask_for_heuristics(official_file, tiny_model, checkpointer):
    path, source = official_file
    content = {**pickle.loads(path.read_bytes()), "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content))
    target = tiny_model()
    checkpointer(target).load(str(path))
    assert _same(target, source)


def test_the_predictor_of_detectron2_loads_official_files(official_file, tiny_config):
    path, source = official_file
    cfg = tiny_config(keys={"MODEL.WEIGHTS": str(path), "INPUT.MIN_SIZE_TEST": 64})
    predictor = DefaultPredictor(cfg)
    assert _same(predictor.model, source)
    image = torch.randint(0, 256, (40, 60, 3), dtype=torch.uint8).numpy()
    assert predictor(image)["sem_seg"].shape == (133, 40, 60)


def test_a_pickle_without_author(official_file, tiny_model):
    path, source = official_file
    content = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({"model": content["model"]}))
    target = tiny_model()
    MaskTransformerCheckpointer(target).load(str(path))
    assert _same(target, source)


def test_another_number_of_classes_loads_all_but_the_class_head(official_file, tiny_model):
    path, source = official_file
    own_data = {"DATASETS.TRAIN": (), "DATASETS.TEST": ()}
    target = tiny_model(keys={"MODEL.MASK_TRANSFORMER.NUM_CLASSES": 3, **own_data})
    before = target.transformer_decoder.class_embed.weight.clone()
    MaskTransformerCheckpointer(target).load(str(path))
    assert torch.equal(target.transformer_decoder.class_embed.weight, before)
    wanted = source.state_dict()
    for name, value in target.state_dict().items():
        assert "class_embed" in name or torch.equal(value, wanted[name]), name


def test_weights_of_a_backbone_alone_load(tmp_path, tiny_model):
    source, target = tiny_model(), tiny_model()
    content = {
        "model": _values(source.backbone.state_dict()),
        "__author__": "someone",
        "matching_heuristics": True,
    }
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(content))
    MaskTransformerCheckpointer(target).load(str(tmp_path / "R-50.pkl"))
    assert _same(target.backbone, source.backbone)


class _Small(nn.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), value))


def _checkpointer(folder, value=0.0):
    model = _Small(value)
    optimizer = torch.optim.SGD(model.parameters(), lr=value + 0.5)
    return MaskTransformerCheckpointer(model, str(folder), optimizer=optimizer)


def test_a_run_resumes_from_what_was_saved(tmp_path):
    _checkpointer(tmp_path / "run", 4.0).save("model_0000009", iteration=9)
    resumed = _checkpointer(tmp_path / "run")
    assert resumed.has_checkpoint()
    rest = resumed.resume_or_load("", resume=True)
    assert rest["iteration"] == 9
    assert resumed.model.weight.tolist() == [4, 4, 4]
    assert resumed.checkpointables["optimizer"].param_groups[0]["lr"] == 4.5
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "last_checkpoint",
        "model_0000009.pth",
    ]


def test_nothing_to_load_and_nowhere_to_save(tmp_path):
    checkpointer = MaskTransformerCheckpointer(_Small(1.0), save_to_disk=False)
    assert checkpointer.load("") == {}
    checkpointer.save_dir = str(tmp_path)
    checkpointer.save("model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_the_earlier_file(tmp_path, monkeypatch, failure):
    _checkpointer(tmp_path, 1.0).save("model_final", iteration=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def half_a_save(data, file):
        file.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(torch, "save", half_a_save)
    with pytest.raises(type(failure)):
        _checkpointer(tmp_path, 2.0).save("model_final", iteration=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupted_save_does_not_move_the_last_checkpoint(tmp_path, monkeypatch):
    _checkpointer(tmp_path, 1.0).save("model_1")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        _checkpointer(tmp_path, 2.0).save("model_2")
    monkeypatch.undo()
    resumed = _checkpointer(tmp_path)
    resumed.resume_or_load("", resume=True)
    assert resumed.model.weight.tolist() == [1, 1, 1]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        _checkpointer(tmp_path).load(str(tmp_path / "none.pth"))


@pytest.mark.parametrize("name", ["broken.pth", "broken.pkl"])
@pytest.mark.parametrize("content", [b"", b"half a checkp"])
def test_a_corrupt_file_is_named_and_a_good_one_loads_after(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    checkpointer = _checkpointer(tmp_path)
    with pytest.raises(ValueError, match=name):
        checkpointer.load(str(tmp_path / name))
    _checkpointer(tmp_path, 3.0).save("good")
    checkpointer.load(str(tmp_path / "good.pth"))
    assert checkpointer.model.weight.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    "state", [{}, {"other.weight": torch.ones(3)}, {"weight": torch.ones(7)}, 5]
)
def test_a_file_that_holds_nothing_of_the_model_is_an_error(tmp_path, state):
    torch.save({"model": state}, tmp_path / "foreign.pth")
    checkpointer = _checkpointer(tmp_path, 1.0)
    with pytest.raises(ValueError, match=r"foreign\.pth"):
        checkpointer.load(str(tmp_path / "foreign.pth"))
    assert checkpointer.model.weight.tolist() == [1, 1, 1]


def test_a_state_of_another_optimizer_names_the_file(tmp_path):
    _checkpointer(tmp_path).save("model")
    checkpointer = _checkpointer(tmp_path)
    groups = [{"params": [nn.Parameter(torch.ones(1))]} for _ in range(2)]
    checkpointer.checkpointables["optimizer"] = torch.optim.SGD(groups, lr=1.0)
    with pytest.raises(ValueError, match=r"model\.pth cannot be loaded.*parameter groups"):
        checkpointer.load(str(tmp_path / "model.pth"))


def test_a_mask_head_is_trained_on_the_detector_of_a_box_checkpoint(tmp_path, tiny_model):
    key = "MODEL.MASK_TRANSFORMER.MASK_HEAD."
    boxes = tiny_model("detr_small_shapes_panoptic", {key + "FREEZE_DETECTOR": False})
    state = boxes.state_dict()
    detector = {n: v for n, v in state.items() if not n.startswith("mask_head.")}
    target = tiny_model("detr_small_shapes_panoptic", {key + "FREEZE_DETECTOR": True})
    torch.save({"model": detector}, tmp_path / "boxes.pth")
    MaskTransformerCheckpointer(target).load(str(tmp_path / "boxes.pth"))
    found = target.state_dict()
    assert all(torch.equal(found[name], value) for name, value in detector.items())
    del detector["class_embed.bias"]
    torch.save({"model": detector}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"part\.pth.*not trained: class_embed\.bias"):
        MaskTransformerCheckpointer(target).load(str(tmp_path / "part.pth"))
