import json

import pytest

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


def test_curves_are_drawn(runs, tmp_path):
    plot_comparison(runs, tmp_path / "curves.png", minutes=10)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_a_run_that_is_not_there_is_named(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.metrics\.json does not exist"):
        comparison_table({**runs, "C": tmp_path / "nowhere"})
