import json
import sys
from pathlib import Path

import pytest
from detectron2.modeling import build_model


@pytest.fixture
def tool(load_benchmark):
    return load_benchmark("compare")


@pytest.fixture
def run(tool, monkeypatch, tmp_path):
    """Function (exit codes) → exit code and the command lines of the trainings, which are faked."""

    def call(codes, comparison="camvid", *further):
        commands = []

        class Done:
            def __init__(self, code):
                self.returncode = code

        def fake(words, check):
            commands.append(words)
            code = codes[len(commands) - 1]
            if not code:
                folder = tmp_path / "out" / words[words.index("OUTPUT_DIR") + 1].split("/")[-1]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "model_final.pth").touch()
                (folder / "config.yaml").write_text("SOLVER: {MAX_MINUTES: 2.0}")
                line = {"iteration": 3, "sem_seg/mIoU": 10.0 + len(commands)}
                (folder / "metrics.json").write_text(json.dumps(line))
            return Done(code)

        monkeypatch.setattr(tool.subprocess, "run", fake)
        arguments = ["compare.py", comparison, "--data", "somewhere", "--minutes", "2"]
        arguments += ["--output", str(tmp_path / "out"), *further]
        arguments += ["--options", "SOLVER.BASE_LR", "0.5"]
        monkeypatch.setattr(sys, "argv", arguments)
        return tool.main(), commands

    return call


def test_all_runs_get_the_same_budget_and_an_interruption_is_continued(run, tmp_path, capsys):
    code, first = run([0, 3])
    assert code == 3
    assert "MaskFormer ended with exit code 3" in capsys.readouterr().err
    (tmp_path / "out/maskformer").mkdir()  # interrupted
    code, others = run([0, 0, 0])
    assert code == 0
    assert ["--resume" in words for words in [*first, *others]] == [
        False,
        False,
        True,
        False,
        False,
    ]
    commands = [first[0], *others]
    assert [c[c.index("OUTPUT_DIR") + 1].split("/")[-1] for c in commands] == [
        "mask2former",
        "maskformer",
        "perpixelbaseline_plus",
        "perpixelbaseline",
    ]
    for words in commands:
        assert words[words.index("SOLVER.MAX_MINUTES") + 1] == "2.0"
        assert words[words.index("--data") + 1] == "somewhere"
        assert words[words.index("--data-task") + 1] == "semantic"
        assert words[-2:] == ["SOLVER.BASE_LR", "0.5"]
    table = (tmp_path / "out/table.md").read_text()
    assert "| PerPixelBaseline+ | 4 | 12.0 |" in table
    assert (tmp_path / "out/curves.png").is_file()


def test_runs_of_another_budget_are_not_mixed(run, tmp_path, capsys):
    (tmp_path / "out/maskformer").mkdir(parents=True)
    (tmp_path / "out/maskformer/config.yaml").write_text("SOLVER: {MAX_MINUTES: 5.0}")
    with pytest.raises(SystemExit):
        run([0, 0, 0, 0])
    assert "maskformer was trained for 5.0 minutes" in capsys.readouterr().err


def test_boxes_are_scored_beside_masks(run):
    code, commands = run([0, 0], "pennfudan")
    assert code == 0
    for words in commands:
        # The folder holds panoptic annotations too, which would be preferred.
        assert words[words.index("--data-task") + 1] == "instance"
        tasks = words[words.index("MODEL.MASK_TRANSFORMER.TEST.TASKS") + 1]
        assert json.loads(tasks) == ["instance", "box"]


@pytest.mark.parametrize("comparison", ["shapes", "systems", "nuclei"])
def test_every_run_on_shapes_and_nuclei_computes_boxes(tool, tiny_config, comparison):
    for run in tool.COMPARISONS[comparison]:
        cfg = tiny_config(Path(run.config).name, dict(pairs(run.options)))
        tasks = cfg.MODEL.MASK_TRANSFORMER.TEST.TASKS
        assert set(tasks) >= {"panoptic", "instance", "box"}
        build_model(cfg)  # which refuses what a system cannot do


def pairs(words):
    return zip(words[::2], words[1::2], strict=True)


def test_every_run_is_a_config_that_exists(tool):
    for runs in tool.COMPARISONS.values():
        for run in runs:
            assert (tool.CHECKOUT / f"configs/{run.config}.yaml").is_file()
        folders = [tool.folder_name(run.label) for run in runs]
        assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("comparison", ["systems", "nuclei"])
def test_the_five_systems_are_in_the_order_of_their_years(tool, comparison):
    labels = [run.label for run in tool.COMPARISONS[comparison]]
    assert labels == ["DETR", "MaX-DeepLab", "MaskFormer", "Mask2Former", "kMaX-DeepLab"]


COST = {
    "size": {"parameters": 9e6, "idle_parameters": 0, "flops": 5e9, "uncounted": ["aten::gelu"]},
    "inference": {"seconds": 0.5, "mib": 100.0},
    "training": {"seconds": 2.0, "mib": 1000.0},
}


def test_costs_are_measured_once_and_stand_beside_the_scores(run, tool, monkeypatch, tmp_path):
    asked = []

    def fake(systems, args):
        asked.append(systems)
        return dict.fromkeys(systems, COST)

    monkeypatch.setattr(tool, "measure", fake)
    for _ in range(2):
        code, _ = run([0, 0], "pennfudan", "--costs")
        assert code == 0
    [systems] = asked
    assert systems["DETR"].config == "detr/detr_small_custom_instance"
    assert (systems["DETR"].data, systems["DETR"].data_task) == ("somewhere", "instance")
    assert systems["DETR"].options[-2:] == ["SOLVER.BASE_LR", "0.5"]
    header, _, first, *_, last = (tmp_path / "out/table.md").read_text().splitlines()
    assert header.startswith("| system | parameters, M | GFLOPs | inference, s |")
    assert header.endswith("| training step, MiB | iterations | mIoU |")
    assert first == "| Mask2Former | 9.0 | 5 | 0.5 | 100 | 2 | 1,000 | 4 | 11.0 |"
    assert "gelu" in last


def test_costs_of_other_runs_are_not_taken(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/costs.json").write_text(json.dumps({"DETR": COST}))
    with pytest.raises(SystemExit):
        run([0, 0], "pennfudan", "--costs")
    assert "costs.json holds the costs of other runs" in capsys.readouterr().err


def test_a_number_of_the_costs_must_be_positive(run, capsys):
    with pytest.raises(SystemExit):
        run([0], "pennfudan", "--costs", "--repeats", "0")
    assert "--repeats must be 1 or more, not 0" in capsys.readouterr().err
