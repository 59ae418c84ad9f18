import pytest
import torch

from mask_transformers import model_zoo
from mask_transformers.engine import build_config
from mask_transformers.engine.setup import refuse_to_overwrite


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="config.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write_file


def test_files_then_options(write):
    write("SOLVER: {MAX_ITER: 5, BASE_LR: 1e-4}\nOUTPUT_DIR: base", "bases/base.yaml")
    path = write("_BASE_: bases/base.yaml\nSOLVER: {MAX_ITER: 6}")
    cfg = build_config(path, ["OUTPUT_DIR", "mine"])
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.OUTPUT_DIR) == (6, 1e-4, "mine")


def test_several_bases_in_their_order(write):
    write("SEED: 1\nOUTPUT_DIR: one", "one.yaml")
    write("SEED: 2", "two.yaml")
    cfg = build_config(write("_BASE_: [one.yaml, two.yaml]"))
    assert (cfg.SEED, cfg.OUTPUT_DIR) == (2, "one")


def test_integers_are_taken_for_floats(write):
    cfg = build_config(write("SOLVER: {MAX_MINUTES: 10}"), ["SOLVER.BASE_LR", "1"])
    assert (cfg.SOLVER.MAX_MINUTES, cfg.SOLVER.BASE_LR) == (10.0, 1.0)
    assert isinstance(cfg.SOLVER.MAX_MINUTES, float)


@pytest.mark.parametrize("name", model_zoo.names())
def test_every_config_of_the_zoo_passes(name):
    build_config(str(model_zoo.config_file(name)))


@pytest.mark.parametrize("where", ["config.yaml", "base.yaml"])
def test_duplicate_keys_are_refused(write, where):
    texts = {"config.yaml": "_BASE_: base.yaml\n", "base.yaml": "SEED: 1\n"}
    texts[where] += "SOLVER:\n  MAX_ITER: 5\n  BASE_LR: 0.1\n  MAX_ITER: 6\n"
    write(texts["base.yaml"], "base.yaml")
    path = write(texts["config.yaml"])
    with pytest.raises(ValueError, match=rf"{where}: key 'MAX_ITER' is given twice.* line 5"):
        build_config(path)


@pytest.mark.parametrize("where", ["config.yaml", "base.yaml"])
def test_unknown_keys_are_refused_with_a_suggestion(write, where):
    texts = {"config.yaml": "_BASE_: base.yaml\n", "base.yaml": "SEED: 1\n"}
    texts[where] += "SOLVER: {MAXITER: 5}\n"
    write(texts["base.yaml"], "base.yaml")
    path = write(texts["config.yaml"])
    expected = rf"{where}: unknown config key SOLVER.MAXITER; did you mean SOLVER.MAX_ITER\?"
    with pytest.raises(ValueError, match=expected):
        build_config(path)


def test_key_in_the_wrong_group_is_found(write):
    with pytest.raises(ValueError, match=r"did you mean MODEL.MASK_TRANSFORMER.QUERIES"):
        build_config(write("MODEL: {QUERIES: 5}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER: {MAX_ITER: many}", "config.yaml.*SOLVER.MAX_ITER"),
        ("SOLVER: 3", "config.yaml: SOLVER is a group"),
        ("- SOLVER", "no mapping"),
        ("SOLVER: [", "config.yaml"),
        ("_BASE_: config.yaml", "its own _BASE_"),
        ("SEED: !!python/object/apply:os.getcwd []", "config.yaml"),
    ],
)
def test_bad_files_are_named(write, text, message):
    with pytest.raises(ValueError, match=message):
        build_config(write(text))


def test_missing_files_are_named(write):
    with pytest.raises(FileNotFoundError, match=r"nowhere.yaml"):
        build_config("nowhere.yaml")
    with pytest.raises(FileNotFoundError, match=r"gone.yaml"):
        build_config(write("_BASE_: gone.yaml"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["SOLVER.MAXITER", "5"], r"SOLVER.MAXITER; did you mean SOLVER.MAX_ITER\?"),
        (["SOLVER", "5"], "SOLVER is a group"),
        (["SEED"], "pairs KEY VALUE"),
        (["SOLVER.STEPS", "x"], "SOLVER.STEPS"),
        ([5, "SEED"], "no config key"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_config("", options)


def test_device_falls_back_unless_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build_config().MODEL.DEVICE == "cpu"
    with pytest.raises(ValueError, match=r"MODEL.DEVICE is 'cuda'"):
        build_config("", ["MODEL.DEVICE", "cuda"])


def test_device_stays_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert build_config().MODEL.DEVICE == "cuda"


def test_data_task_needs_data():
    with pytest.raises(ValueError, match="--data-task instance needs --data"):
        build_config(data_task="instance")


def test_trainings_are_not_overwritten(tmp_path):
    refuse_to_overwrite(str(tmp_path))
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(FileExistsError, match="--resume"):
        refuse_to_overwrite(str(tmp_path))
