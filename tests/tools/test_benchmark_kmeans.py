import json

import pytest

from mask_transformers import model_zoo

QUERIES = 128  # of one update


@pytest.fixture
def run(load_benchmark, tiny_config, monkeypatch, command_line, capsys):
    """Function from a task and further options to what the tool prints."""
    tool = load_benchmark("benchmark_kmeans")
    monkeypatch.setattr(model_zoo, "get_config", tiny_config)
    monkeypatch.setattr(tool, "peaks_of_processes", lambda script, names: dict.fromkeys(names, 1.0))

    def call(task, *options):
        command_line(task, "--size", "65", "97", "--threads", "1", "--repeats", "2", *options)
        tool.main()
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("task", ["update", "inference", "training-step"])
def test_time_memory_and_equality_of_both_forms(run, task):
    report = json.loads(run(task))
    assert list(report["seconds"]) == list(report["median"]) == ["segments", "one-hot"]
    assert report["share_of_memory"] == 1.0
    assert report["times_faster"] > 0
    assert report["difference"] < 1e-5


def test_memory_of_one_form(run):
    large = ["--size", "641", "641", "--stride", "4"]
    assignment = 161 * 161 * QUERIES * 4 / 2**20  # MiB of one matrix of pixels and queries
    assert float(run("update", "--memory-of", "one-hot", *large)) > assignment
