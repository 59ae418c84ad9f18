"""Files of MaX-DeepLab of a training with TensorFlow: every way from them to a model."""

import re

import numpy as np
import pytest
import torch
from deeplab2_variables import END, NAMES, in_training, variables
from detectron2.modeling import build_model

from mask_transformers import model_zoo
from mask_transformers.checkpoint import (
    CheckpointMismatchError,
    MaskTransformerCheckpointer,
    load_official_state_dict,
    read_state_dict,
)
from mask_transformers.prediction import build_predictor

S = "max_deeplab_S_coco_panoptic"
PREFIX = "ckpt-54000"
NODE = "MODEL.MASK_TRANSFORMER."


@pytest.fixture
def small_zoo(tiny_config, monkeypatch):
    """The zoo builds miniatures."""
    monkeypatch.setattr(model_zoo, "get_config", tiny_config)


@pytest.fixture
def tool(run_tool):
    """Function (arguments) → nothing; runs tools/convert_checkpoint.py."""
    return run_tool("convert_checkpoint")


@pytest.fixture
def files(tiny_model, write_tensorflow, tmp_path):
    """Function (zoo name, changes) → a model with another value for every number, and the prefix
    of its files; None leaves a variable out.
    """

    def write(name=S, changes=None):
        model = tiny_model(name)
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.normal_()
        changed = {**variables(name, model), **(changes or {})}
        kept = {key: np.asarray(value) for key, value in changed.items() if value is not None}
        write_tensorflow(tmp_path / PREFIX, in_training(kept))
        return model, tmp_path / PREFIX

    return write


def _same(found, wanted):
    assert found.keys() == wanted.keys()
    return all(torch.equal(value, wanted[name]) for name, value in found.items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_the_zoo_builds_from_them(files, small_zoo, name, suffix):
    source, prefix = files(name)
    model = model_zoo.build(name, weights=f"{prefix}{suffix}")
    assert _same(model.state_dict(), source.state_dict())
    assert not model.training


@pytest.mark.parametrize("name", NAMES)
def test_the_report_has_their_names_and_no_bookkeeping(files, tiny_model, name):
    source, prefix = files(name)
    target = tiny_model(name)
    state = read_state_dict(prefix)
    report = load_official_state_dict(target, state)
    assert set(state) == set(variables(name, source)) == {n for n in report.loaded if "/" in n}
    assert not report.unexpected
    assert _same(target.state_dict(), source.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_training_starts_from_them(files, tiny_model, name):
    source, prefix = files(name)
    target = tiny_model(name)
    MaskTransformerCheckpointer(target).load(str(prefix))
    assert _same(target.state_dict(), source.state_dict())


def test_prediction_reads_them(files, tiny_config):
    source, prefix = files()
    weights = {"MODEL.WEIGHTS": f"{prefix}.index"}
    predictor = build_predictor(tiny_config(S, weights))
    assert _same(predictor.model.state_dict(), source.state_dict())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["ours.pth", "ours.safetensors"])
def test_they_are_converted(files, tool, tiny_config, tmp_path, name, target):
    source, prefix = files(name)
    (tmp_path / "config.yaml").write_text(tiny_config(name).dump())
    arguments = ["--from", "official", "--config-file", tmp_path / "config.yaml"]
    tool(prefix, tmp_path / target, *arguments, "--to", "native")
    assert _same(read_state_dict(tmp_path / target), source.state_dict())
    with pytest.raises(SystemExit, match=r"^error: .*MaXDeepLab"):  # which is not in that library
        tool(prefix, tmp_path / "theirs.pth", *arguments, "--to", "transformers")


KERNEL = "transformer_class_head/_conv/kernel"
AXIS = "encoder/_stage5/_block1/_attention/_height_axis/"
WRONG = {
    "a missing kernel": (
        {AXIS + "qkv_kernel": None},
        "missing from the checkpoint: backbone.stages.res5.blocks.0.attention.height.qkv.weight",
    ),
    "a missing memory": (
        {"encoder/memory_feature": None},
        "missing from the checkpoint: memory.weight",
    ),
    "shorter tables of positions": (
        {AXIS + "_query_rpe/embeddings": np.ones((5, 8), "f4")},
        f"shape of {AXIS}_query_rpe/embeddings: (5, 8) in the checkpoint, (509, 8) in the model",
    ),
    "other classes": (
        {KERNEL: np.ones((1, 64, 20), "f4")},
        f"shape of {KERNEL}: (20, 64, 1) in the checkpoint, (134, 64, 1) in the model",
    ),
    "a stage more": (
        {"encoder/_stage6/_block1/_conv3_bn/_conv/kernel": np.ones((1, 1, 4, 8), "f4")},
        "unknown to the model: encoder/_stage6/_block1/_conv3_bn/_conv/kernel",
    ),
    "a block more": (
        {"encoder/_stage5/_block9/_conv3_bn/_batch_norm/beta": np.ones(8, "f4")},
        "unknown to the model: encoder/_stage5/_block9/_conv3_bn/_batch_norm/beta",
    ),
}


@pytest.mark.parametrize(("changes", "told"), WRONG.values(), ids=list(WRONG))
def test_what_does_not_fit_is_named(files, small_zoo, tiny_model, tool, tiny_config, tmp_path,
                                    changes, told):  # fmt: skip
    _, prefix = files(S, changes)
    target = tiny_model(S)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(CheckpointMismatchError, match=re.escape(told)):
        load_official_state_dict(target, read_state_dict(prefix))
    with pytest.raises(CheckpointMismatchError, match=re.escape(told)):
        model_zoo.build(S, weights=prefix)
    with pytest.raises(ValueError, match=rf"(?s){PREFIX}\.index cannot .*{re.escape(told)}"):
        MaskTransformerCheckpointer(target).load(str(prefix))
    assert _same(target.state_dict(), before)
    (tmp_path / "config.yaml").write_text(tiny_config(S).dump())
    with pytest.raises(SystemExit, match=rf"^error: [^\n]*{re.escape(told)}"):
        tool(prefix, tmp_path / "ours.pth", "--from", "official", "--to", "native",
             "--config-file", tmp_path / "config.yaml")  # fmt: skip
    assert not (tmp_path / "ours.pth").exists()


def test_files_of_the_other_size_do_not_fit(files, tiny_model):
    _, prefix = files("max_deeplab_L_coco_panoptic")
    with pytest.raises(CheckpointMismatchError, match=r"missing .*backbone\.stem\.1\.conv\.weight"):
        load_official_state_dict(tiny_model(S), read_state_dict(prefix))


def test_a_training_with_other_classes_starts_from_a_converted_file(files, tiny_config, tmp_path):
    source, prefix = files()
    own = {NODE + "NUM_CLASSES": 3, "DATASETS.TRAIN": (), "DATASETS.TEST": ()}
    target = build_model(tiny_config(S, own))
    with pytest.raises(ValueError, match=rf"(?s)shape of {KERNEL}: .*convert it first"):
        MaskTransformerCheckpointer(target).load(str(prefix))
    torch.save({"model": source.state_dict()}, tmp_path / "converted.pth")
    MaskTransformerCheckpointer(target).load(str(tmp_path / "converted.pth"))
    assert torch.equal(target.memory.weight, source.memory.weight)


def test_ends_of_names_are_not_needed(files, tiny_model):
    source, _ = files()
    target = tiny_model(S)
    for end in ("", END):
        state = {key + end: value for key, value in variables(S, source).items()}
        load_official_state_dict(target, state)
        assert _same(target.state_dict(), source.state_dict())
