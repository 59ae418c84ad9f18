import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from mask_transformers import checkpoint, model_zoo
from mask_transformers.checkpoint import (
    CheckpointMismatchError,
    load_official_state_dict,
    read_state_dict,
)
from mask_transformers.checkpoint.name_maps import native_name, to_native_names

CLASS_HEAD = "sem_seg_head.predictor.class_embed.weight"
QUERIES = "sem_seg_head.predictor.query_feat.weight"


def _snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def _same(model, snapshot):
    return all(torch.equal(value, snapshot[name]) for name, value in model.state_dict().items())


def _older(name):
    """The name in files without version metadata."""
    name = name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.")
    return name.replace(".query_feat.", ".static_query.")


@pytest.fixture
def models(tiny_model):
    return tiny_model(), tiny_model()


@pytest.mark.parametrize("rename", [str, _older])
def test_official_names_load_completely(models, official_state, rename):
    source, target = models
    state = {rename(name): value for name, value in official_state(source).items()}
    report = load_official_state_dict(target, state)
    assert _same(target, source.state_dict())
    assert len(report.loaded) == len(source.state_dict())
    assert rename(CLASS_HEAD) in report.loaded
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], [])


def test_our_own_names_load_too(models):
    source, target = models
    load_official_state_dict(target, source.state_dict())
    assert _same(target, source.state_dict())


def test_numpy_arrays_are_accepted(models, official_state):
    source, target = models
    arrays = {name: value.numpy() for name, value in official_state(source).items()}
    load_official_state_dict(target, arrays)
    assert _same(target, source.state_dict())


def test_unknown_tensors_are_reported(models, official_state):
    source, target = models
    state = {**official_state(source), "ema.decay": torch.zeros(1)}
    report = load_official_state_dict(target, state)
    assert report.unexpected == ["ema.decay"]
    assert "unknown to the model: ema.decay" in str(report)


def test_a_missing_tensor_leaves_the_model_unchanged(models, official_state):
    source, target = models
    state, before = official_state(source), _snapshot(target)
    del state[QUERIES]
    with pytest.raises(CheckpointMismatchError, match="query_feat") as error:
        load_official_state_dict(target, state)
    assert error.value.report.missing == ["transformer_decoder.query_feat.weight"]
    assert _same(target, before)


def test_another_shape_leaves_the_model_unchanged(models, official_state):
    source, target = models
    state, before = official_state(source), _snapshot(target)
    state[CLASS_HEAD] = torch.zeros(81, 64)
    with pytest.raises(CheckpointMismatchError, match=r"\(81, 64\).*\(134, 64\)") as error:
        load_official_state_dict(target, state)
    assert error.value.report.mismatched == [(CLASS_HEAD, (81, 64), (134, 64))]
    assert _same(target, before)


def test_one_tensor_under_two_names(models, official_state):
    source, target = models
    state = official_state(source)
    state[_older(QUERIES)] = state[QUERIES]
    with pytest.raises(ValueError, match=r"holds transformer_decoder\.query_feat\.weight twice"):
        load_official_state_dict(target, state)


def test_a_value_that_is_no_tensor_is_named(models, official_state):
    source, target = models
    with pytest.raises(ValueError, match="author is no tensor"):
        load_official_state_dict(target, {**official_state(source), "author": "someone"})


def test_load_state_dict_of_the_model_takes_official_names(models, official_state):
    source, target = models
    target.load_state_dict(official_state(source))
    assert _same(target, source.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        target.load_state_dict({})


def test_the_full_model_has_the_tensors_of_the_release():
    """The facts of the official file, in short: counts, and names and shapes here and there."""
    model = model_zoo.build("mask2former_R50_coco_panoptic")
    state = model.state_dict()
    assert len(state) == 557  # the file has one more, criterion.empty_weight
    assert sum(value.numel() for value in state.values()) == 44_090_118
    assert sum(p.numel() for p in model.parameters()) == 43_983_878  # batch norms are fixed
    for name, shape in FACTS.items():
        ours = native_name("Mask2Former", name)
        assert tuple(state[ours].shape) == shape, name
        assert native_name("Mask2Former", _older(name)) == ours


FACTS = {
    "backbone.stem.conv1.weight": (64, 3, 7, 7),
    "backbone.res5.2.conv3.norm.running_var": (2048,),
    "sem_seg_head.pixel_decoder.input_proj.0.0.weight": (256, 2048, 1, 1),
    "sem_seg_head.pixel_decoder.input_proj.2.1.bias": (256,),
    "sem_seg_head.pixel_decoder.transformer.level_embed": (3, 256),
    "sem_seg_head.pixel_decoder.transformer.encoder.layers.5.linear1.weight": (1024, 256),
    "sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.sampling_offsets.bias": (
        192,
    ),
    "sem_seg_head.pixel_decoder.adapter_1.weight": (256, 256, 1, 1),
    "sem_seg_head.pixel_decoder.adapter_1.norm.weight": (256,),
    "sem_seg_head.pixel_decoder.layer_1.weight": (256, 256, 3, 3),
    "sem_seg_head.pixel_decoder.mask_features.bias": (256,),
    "sem_seg_head.predictor.transformer_cross_attention_layers.8.multihead_attn.in_proj_weight": (
        768,
        256,
    ),
    "sem_seg_head.predictor.transformer_cross_attention_layers.0.norm.weight": (256,),
    "sem_seg_head.predictor.transformer_self_attention_layers.3.self_attn.out_proj.bias": (256,),
    "sem_seg_head.predictor.transformer_ffn_layers.8.linear2.weight": (256, 2048),
    "sem_seg_head.predictor.transformer_ffn_layers.0.norm.bias": (256,),
    "sem_seg_head.predictor.decoder_norm.weight": (256,),
    "sem_seg_head.predictor.query_feat.weight": (100, 256),
    "sem_seg_head.predictor.query_embed.weight": (100, 256),
    "sem_seg_head.predictor.level_embed.weight": (3, 256),
    "sem_seg_head.predictor.class_embed.weight": (134, 256),
    "sem_seg_head.predictor.mask_embed.layers.2.weight": (256, 256),
}


@pytest.mark.parametrize("rename", [str, _older])
@pytest.mark.parametrize(
    "name",
    [
        "mask2former_R50_coco_panoptic",
        "mask2former_R50_ade20k_semantic",
        "mask2former_swin_tiny_coco_instance",
        "mask2former_swin_large_coco_panoptic",
    ],
)
def test_every_tensor_of_the_official_model_is_covered(shared, name, rename):
    lines = (shared / f"parity/manifests/{name}.tsv").read_text().splitlines()
    shapes = {
        rename(tensor): tuple(int(side) for side in shape.split(",") if side)
        for tensor, shape, _ in (line.split("\t") for line in lines)
    }
    native = to_native_names("Mask2Former", {**shapes, "criterion.empty_weight": ()})
    model = model_zoo.build(name).state_dict()
    assert native == {key: tuple(value.shape) for key, value in model.items()}


def _write(path, content):
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_files_are_read_bare_or_under_model(tmp_path, suffix, wrapped):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    value = values if suffix == ".pkl" else torch.from_numpy(values)
    state = OrderedDict(weight=value)
    content = {"model": state, "__author__": "us"} if wrapped else state
    found = read_state_dict(_write(tmp_path / f"weights{suffix}", content))
    assert list(found) == ["weight"]
    assert torch.equal(found["weight"], torch.from_numpy(values))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_all_protocols_are_read(tmp_path, protocol):
    state = {"a": np.ones((2, 2)), "b": np.float32(3), "c": np.arange(3)[::-1]}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(state, protocol=protocol))
    found = read_state_dict(tmp_path / "w.pkl")
    assert {name: value.tolist() for name, value in found.items()} == {
        "a": [[1, 1], [1, 1]],
        "b": 3,
        "c": [2, 1, 0],
    }


class _Attack:
    def __reduce__(self):
        return (print, ("code of the file ran",))


@pytest.mark.parametrize("name", ["attack.pkl", "attack.pth"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, capsys, name):
    path = _write(tmp_path / name, {"model": _Attack()})
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        read_state_dict(path)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_a_missing_file_is_named(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match=f"none{suffix}"):
        read_state_dict(tmp_path / f"none{suffix}")


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04\x95"])
def test_a_corrupt_file_is_named(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"broken{suffix} is not a readable checkpoint"):
        read_state_dict(path)


def test_half_a_file_is_named(tmp_path):
    path = _write(tmp_path / "half.pth", {"weight": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"half\.pth is not a readable"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [{}, {"model": {}}, [1, 2]])
def test_a_file_without_state_dict_is_named(tmp_path, content):
    with pytest.raises(ValueError, match=r"empty\.pth holds no state dict"):
        read_state_dict(_write(tmp_path / "empty.pth", content))


def test_a_file_with_other_things_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"odd\.pth: note is no tensor"):
        read_state_dict(_write(tmp_path / "odd.pth", {"note": "hello"}))


def test_public_names():
    assert all(hasattr(checkpoint, name) for name in checkpoint.__all__)
