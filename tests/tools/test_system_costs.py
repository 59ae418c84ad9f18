import json
from types import SimpleNamespace

import pytest
import torch

SMALL = {
    "parameters": 4_321_000,
    "idle_parameters": 0,
    "flops": 1_234_000_000,
    "uncounted": ["aten::gelu"],
}
REPORT = {
    "size": SMALL,
    "inference": {"seconds": 0.12345, "mib": 56.0},
    "training": {"seconds": 1.5, "mib": 1234.0},
}
# Miniature in time and memory, whole otherwise.
OPTIONS = ["MODEL.TIMM.NAME", "test_efficientnet", "MODEL.MASK_TRANSFORMER.QUERIES", "7"]
ARGUMENTS = SimpleNamespace(runs=1, masks=3, threads=1, repeats=2)


@pytest.fixture
def tool(load_benchmark):
    return load_benchmark("system_costs")


@pytest.fixture
def reports(load_benchmark):
    return load_benchmark("cost_reports")


def test_the_table(tool):
    idle = REPORT | {"size": {**SMALL, "idle_parameters": 600_000, "uncounted": []}}
    table = tool.cost_table({"A": REPORT, "B": idle}).splitlines()
    assert table[0].startswith(
        "| system | parameters, M | GFLOPs | inference, s | inference, MiB |"
    )
    assert table[2] == "| A | 4.3 | 1.23 | 0.123 | 56 | 1.5 | 1,234 |"
    assert table[3].startswith("| B | 4.3 (+ 0.6) |")
    assert table[-1] == "Not in GFLOPs, beside fvcore's list of free operations: gelu."


def test_systems_take_turns_in_processes_of_their_own(tool, monkeypatch):
    seconds = iter(range(100))
    calls = []

    def fake(script, words):
        part, system = words[1], json.loads(words[3])["config"]
        calls.append((part, system))
        assert tool.parse_arguments(words).runs == 1
        return SMALL if part == "size" else {"seconds": float(next(seconds)), "mib": 1.0}

    monkeypatch.setattr(tool, "in_process", fake)
    measured = tool.measure({"A": tool.System("a"), "B": tool.System("b")}, ARGUMENTS)
    timed = [(part, s) for part in ("inference", "training") for s in "ab"]
    assert calls == [("size", "a"), ("size", "b"), *timed, *timed]
    assert measured["A"]["inference"]["seconds"] == 2.0  # of 0 and 4
    assert measured["B"]["training"] == {"seconds": 5.0, "mib": 1.0}
    assert measured["A"]["size"] == SMALL


@pytest.mark.parametrize("preset", ["small", "published"])
def test_presets_are_five_configs_that_build(tool, reports, preset):
    systems = tool.PRESETS[preset]
    assert list(systems) == ["DETR", "MaX-DeepLab", "MaskFormer", "Mask2Former", "kMaX-DeepLab"]
    sizes = {reports.sizes_of(s, reports.config_of(s)) for s in systems.values()}
    assert sizes == ({(160, 160, 4)} if preset == "small" else {(640, 512, 2)})
    for system in systems.values():
        node = reports.config_of(system).MODEL.MASK_TRANSFORMER
        assert (list(node.PADDED_SIZE), node.MASK_HEAD.FREEZE_DETECTOR) == ([], False)


def test_frozen_norms_stay_frozen_without_weights(tool, reports):
    system = tool.PRESETS["small"]["Mask2Former"]
    cfg = reports.config_of(system)
    assert (cfg.MODEL.TIMM.WEIGHTS, cfg.MODEL.TIMM.NORM) == ("", "FrozenBN")


@pytest.mark.parametrize("label", ["DETR", "MaX-DeepLab"])
def test_a_system_is_measured(tool, reports, label):
    config = tool.PRESETS["small"][label].config
    system = reports.System(config, OPTIONS, "", "", 64, 64, 2)
    size = reports.size_report(system, ARGUMENTS)
    assert size["flops"] > 1e6
    assert (size["idle_parameters"] > 0) == (label == "MaX-DeepLab")
    assert "aten::softmax" in size["uncounted"]
    for measured in (reports.inference_report, reports.training_report):
        report = measured(system, ARGUMENTS)
        assert report["seconds"] > 0
        assert report["mib"] >= 0


def test_a_step_trains(tool, reports):
    system = reports.System(tool.PRESETS["small"]["MaskFormer"].config, OPTIONS)
    step = reports.training_step(reports.config_of(system), (64, 64, 2), masks=3)
    losses = [step() for _ in range(8)]
    assert min(losses[1:]) < losses[0]


def test_labels_are_those_of_the_data_where_the_head_has_more(tool, reports, monkeypatch):
    asked = []
    original = reports.random_records
    monkeypatch.setattr(reports, "random_records", lambda *a: asked.append(a) or original(*a))
    monkeypatch.setattr(reports, "build_optimizer", lambda cfg, model: None)

    class Detector(torch.nn.Linear):
        class_ids = torch.arange(133)

    monkeypatch.setattr(reports, "build_model", lambda cfg: Detector(1, 1))
    cfg = reports.config_of(tool.PRESETS["published"]["DETR"])
    assert cfg.MODEL.MASK_TRANSFORMER.NUM_CLASSES == 250
    reports.training_step(cfg, (640, 64, 1), masks=2)
    assert asked == [(1, (64, 64), 2, 133)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a preset, or --measure and --system"),
        (["--measure", "size"], "give a preset"),
        (["small", "--measure", "size", "--system", '{"config": "a"}'], "give a preset"),
        (["small", "--repeats", "0"], "--repeats must be 1 or more, not 0"),
        (["large"], "invalid choice"),
    ],
)
def test_argument_errors(tool, words, message, capsys):
    with pytest.raises(SystemExit):
        tool.parse_arguments(words)
    assert message in capsys.readouterr().err


def test_a_process_that_fails_is_named(load_benchmark, tmp_path):
    process = load_benchmark("measured_process")
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('working')\nprint('{\"seconds\": ' + sys.argv[1] + '}')")
    assert process.in_process(str(script), ["3"]) == {"seconds": 3}
    script.write_text("raise SystemExit(4)")
    with pytest.raises(RuntimeError, match=r"exit code 4 of .*script\.py --fast"):
        process.in_process(str(script), ["--fast"])


def test_the_first_run_is_not_timed(load_benchmark, monkeypatch):
    process = load_benchmark("measured_process")
    clock = iter([0.0, 9.0, 10.0, 11.0, 20.0, 23.0, 30.0, 32.0])
    monkeypatch.setattr(process.time, "perf_counter", lambda: next(clock))
    calls = []
    report = process.time_and_peak(lambda: calls.append(1), 3)
    assert report["seconds"] == 2.0  # of 1, 3 and 2
    assert len(calls) == 4
