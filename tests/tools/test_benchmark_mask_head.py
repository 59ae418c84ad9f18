import json

import pytest
import torch

from mask_transformers import model_zoo


@pytest.fixture
def tool(load_benchmark, tiny_config, monkeypatch):
    tool = load_benchmark("benchmark_mask_head")
    keys = {"MODEL.MASK_TRANSFORMER.QUERIES": 20}  # more than inference takes at a time
    monkeypatch.setattr(model_zoo, "get_config", lambda name: tiny_config(name, keys))
    monkeypatch.setattr(tool, "peaks_of_processes", lambda script, names: dict.fromkeys(names, 1.0))
    return tool


@pytest.fixture
def run(tool, command_line, capsys):
    """Function from further options to what the tool prints."""

    def call(*options):
        command_line("--size", "64", "90", "--threads", "1", "--repeats", "2", *options)
        tool.main()
        return capsys.readouterr().out

    return call


def test_time_memory_and_equality_by_the_number_of_queries(run):
    report = json.loads(run("--queries", "18", "3"))
    names = ["detector", "kept_3", "kept_18", "official"]
    assert list(report["seconds"]) == list(report["median"]) == list(report["peak_mib"]) == names
    assert all(len(values) == 2 for values in report["seconds"].values())
    for ratios in ("seconds_per_query", "times_faster"):
        assert list(report[ratios]) == ["kept_3", "kept_18"]
    assert max(report["difference"].values()) < 1e-5


def test_the_official_order_of_work_is_compared_query_by_query(tool):
    model = tool.random_model(tool.MODEL)
    with torch.no_grad():
        scene = tool.varied(model.detect(torch.randn(1, 3, 64, 90), [(64, 90)]))
        found, others = tool.official_masks(model, scene), model.masks(scene, 0, torch.tensor([4]))
    assert found.shape == (20, 16, 23)
    torch.testing.assert_close(found[4:5], others, rtol=1e-4, atol=1e-5)
    assert tool.relative_difference(found[5:6], others) > 1e-3


def test_a_number_of_queries_that_the_model_has_not(run):
    for count in ("21", "0"):
        with pytest.raises(ValueError, match=rf"--queries can be 1 to 20, .*, not {count}"):
            run("--queries", count)


def test_a_name_that_is_not_measured(run, capsys):
    with pytest.raises(SystemExit):
        run("--queries", "3", "--memory-of", "kept_4")
    assert "choose from detector, kept_3, official" in capsys.readouterr().err
