import pickle
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from mask_transformers.checkpoint import read_state_dict, to_transformers


@pytest.fixture
def run(run_tool):
    """Function (arguments) → nothing; runs tools/convert_checkpoint.py."""
    return run_tool("convert_checkpoint")


@pytest.fixture
def model(tiny_config):
    return build_model(tiny_config())


@pytest.fixture
def options(tiny_config, tmp_path):
    """The arguments that name the config of the miniature."""
    (tmp_path / "config.yaml").write_text(tiny_config().dump())
    return "--config-file", tmp_path / "config.yaml"


def _same(found, wanted):
    assert found.keys() == wanted.keys()
    return all(torch.equal(value, wanted[name]) for name, value in found.items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("flags", [(), ("--published-names",)])
def test_from_official_to_transformers_to_native(
    run, model, official_state, options, tmp_path, suffix, flags
):
    source, middle, target = (tmp_path / f"{i}{suffix}" for i in range(3))
    source = source.with_suffix(".pkl")
    content = {name: value.numpy() for name, value in official_state(model).items()}
    source.write_bytes(pickle.dumps({"model": content, "__author__": "the authors"}))
    run(source, middle, "--from", "official", "--to", "transformers", *options, *flags)
    wanted = to_transformers(model, published_names=bool(flags))
    assert _same(read_state_dict(middle), wanted)
    run(middle, target, "--from", "transformers", "--to", "native", *options)
    assert _same(read_state_dict(target), model.state_dict())


def test_detr_with_the_resnet_of_timm(run, tiny_config, tmp_path):
    cfg = tiny_config("detr_R50_dc5_coco")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    model = build_model(cfg)
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    arguments = [tmp_path / "ours.pth", tmp_path / "theirs.pth", "--from", "native"]
    arguments += ["--to", "transformers", "--config-file", tmp_path / "config.yaml"]
    with pytest.raises(SystemExit, match=r"^error: .*RES5_DILATION 2"):
        run(*arguments)
    run(*arguments, "--timm-backbone")
    wanted = to_transformers(model, timm_backbone=True)
    assert _same(read_state_dict(tmp_path / "theirs.pth"), wanted)


def test_files_of_tensorflow_are_read(run, options, tmp_path):
    source = (
        Path(__file__).parents[1] / "checkpoint/tensorflow_files/objects"
    )  # of no model of ours
    with pytest.raises(SystemExit, match="does not fit the model: 0 tensors fit; missing from"):
        run(source, tmp_path / "ours.pth", "--from", "official", "--to", "native", *options)
    assert not (tmp_path / "ours.pth").exists()


def test_layout_of_the_files(run, model, options, tmp_path):
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    for layout in ("native", "transformers"):
        run(tmp_path / "ours.pth", tmp_path / f"{layout}.pth", "--from", "native", "--to", layout,
            *options)  # fmt: skip
    assert set(torch.load(tmp_path / "native.pth", weights_only=True)) == {"model"}
    assert "class_predictor.bias" in torch.load(tmp_path / "transformers.pth", weights_only=True)


def _convert(state, layout, tmp_path, options):
    torch.save(state, tmp_path / "source.pth")
    target = tmp_path / "target.pth"
    return tmp_path / "source.pth", target, "--from", layout, "--to", "native", *options


def test_leftovers_and_gaps_are_named_in_one_line(run, model, options, tmp_path):
    state = {**model.state_dict(), "ema.decay": torch.zeros(1)}
    with pytest.raises(SystemExit, match=r"^error: .*source\.pth .*unknown to the model: ema\.de"):
        run(*_convert(state, "official", tmp_path, options))
    theirs = to_transformers(model)
    with pytest.raises(SystemExit, match=r"^error: Mask2Former has no counterpart of ema\.decay$"):
        run(*_convert({**theirs, "ema.decay": torch.zeros(1)}, "transformers", tmp_path, options))
    del theirs["class_predictor.bias"]
    with pytest.raises(SystemExit, match=r"^error: [^\n]*missing from .*class_embed\.bias$"):
        run(*_convert(theirs, "transformers", tmp_path, options))
    with pytest.raises(SystemExit, match=r"^error: [^\n]*; and \d+ more$"):
        run(
            *_convert({"class_predictor.bias": torch.zeros(134)}, "transformers", tmp_path, options)
        )
    assert not (tmp_path / "target.pth").exists()


def test_nothing_is_overwritten(run, model, options, tmp_path):
    arguments = _convert(model.state_dict(), "native", tmp_path, options)
    (tmp_path / "target.pth").write_bytes(b"mine")
    with pytest.raises(SystemExit, match=r"^error: .*target\.pth exists already"):
        run(*arguments)
    assert (tmp_path / "target.pth").read_bytes() == b"mine"


def test_missing_files(run, options, tmp_path):
    where = (tmp_path / "none.pth", tmp_path / "target.pth", "--from", "native", "--to", "native")
    with pytest.raises(SystemExit, match=r"^error: there is no checkpoint .*none\.pth$"):
        run(*where, *options)
    with pytest.raises(SystemExit, match=r"^error: .*none\.yaml"):
        run(*where, "--config-file", tmp_path / "none.yaml")


def test_a_model_that_transformers_lacks(run, tiny_config, tmp_path):
    cfg = tiny_config("maskformer_small_custom_panoptic")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save(build_model(cfg).state_dict(), tmp_path / "source.pth")
    with pytest.raises(
        SystemExit, match=r"^error: MaskFormer .*no counterpart of .* and \d+ more$"
    ):
        run(tmp_path / "source.pth", tmp_path / "target.pth", "--from", "native", "--to",
            "transformers", "--config-file", tmp_path / "config.yaml")  # fmt: skip
