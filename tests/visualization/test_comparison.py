import json

import pytest
from matplotlib.figure import Figure

from mask_transformers.visualization.comparison import comparison_table, plot_comparison


@pytest.fixture
def runs(tmp_path):
    """Two runs with metrics, one of them scored twice."""
    lines = {
        "A": [
            {"iteration": 9, "total_loss": 3.0, "sem_seg/mIoU": 20.0},
            {"iteration": 19, "total_loss": 2.0, "sem_seg/mIoU": 44.44, "panoptic_seg/PQ": 31.0},
        ],
        "B+": [{"iteration": 1499, "total_loss": 1.0, "sem_seg/mIoU": 50.0}],
    }
    folders = {}
    for label, records in lines.items():
        folders[label] = tmp_path / label
        folders[label].mkdir()
        text = "\n".join(json.dumps(record) for record in records)
        (folders[label] / "metrics.json").write_text(text)
    return folders


def test_the_table_has_the_last_scores(runs):
    assert comparison_table(runs).splitlines() == [
        "| system | iterations | PQ | mIoU |",
        "| --- | --- | --- | --- |",
        "| A | 20 | 31.0 | 44.4 |",
        "| B+ | 1,500 | – | 50.0 |",
    ]


def test_box_ap_is_told_from_mask_ap(tmp_path):
    scores = {"bbox/AP": 30.0, "segm/AP": 20.0}
    (tmp_path / "metrics.json").write_text(json.dumps({"iteration": 9, **scores}))
    header, _, row = comparison_table({"A": tmp_path}).splitlines()
    assert header == "| system | iterations | mask AP | box AP |"
    assert row == "| A | 10 | 20.0 | 30.0 |"


def test_things_and_stuff_and_costs_have_columns(tmp_path):
    scores = {f"panoptic_seg/{name}": 30.0 + i for i, name in enumerate(("PQ_th", "PQ", "PQ_st"))}
    (tmp_path / "metrics.json").write_text(json.dumps({"iteration": 9, **scores}))
    runs = {"A": tmp_path, "B": tmp_path}
    header, _, first, second = comparison_table(runs, {"A": {"GFLOPs": "5"}}).splitlines()
    assert header == "| system | GFLOPs | iterations | PQ | PQ things | PQ stuff |"
    assert first == "| A | 5 | 10 | 31.0 | 30.0 | 32.0 |"
    assert second == "| B | – | 10 | 31.0 | 30.0 | 32.0 |"


def test_every_score_has_its_diagram(runs, tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, p: drawn.append(f) or save(f, p))
    plot_comparison(runs, tmp_path / "curves.png", minutes=10)
    assert (tmp_path / "curves.png").stat().st_size > 1000
    panoptic, semantic = drawn[0].axes
    assert panoptic.get_ylabel() == "PQ on the evaluation set, %"
    assert [line.get_label() for line in panoptic.lines] == ["A, 31.0"]
    assert semantic.get_ylabel() == "mIoU on the evaluation set, %"
    assert [line.get_label() for line in semantic.lines] == ["A, 44.4", "B+, 50.0"]
    assert list(semantic.lines[0].get_xdata()) == [5, 10]
    assert panoptic.lines[0].get_color() == semantic.lines[0].get_color()


def test_runs_without_scores_give_an_empty_picture(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 9, "total_loss": 1.0}')
    plot_comparison({"A": tmp_path}, tmp_path / "curves.png", minutes=10)
    assert (tmp_path / "curves.png").is_file()


def test_a_run_that_is_not_there_is_named(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.metrics\.json does not exist"):
        comparison_table({**runs, "C": tmp_path / "nowhere"})
