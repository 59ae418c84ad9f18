import math

import pytest
from panopticapi.evaluation import PQStat

from mask_transformers.evaluation.panoptic import summarise

CATEGORIES = [
    {"id": 4, "name": "cat", "isthing": 1},
    {"id": 2, "name": "dog", "isthing": 1},
    {"id": 9, "name": "sky", "isthing": 0},
]


def counted(**by_class):
    statistics = PQStat()
    ids = {category["name"]: category["id"] for category in CATEGORIES}
    for name, (iou, tp, fp, fn) in by_class.items():
        count = statistics[ids[name]]
        count.iou, count.tp, count.fp, count.fn = iou, tp, fp, fn
    return statistics


def test_quality_is_segmentation_times_recognition():
    results = summarise(counted(cat=(1.6, 2, 1, 1)), CATEGORIES)
    assert results["SQ-cat"] == pytest.approx(80)
    assert results["RQ-cat"] == pytest.approx(100 * 2 / 3)
    assert results["PQ-cat"] == pytest.approx(80 * 2 / 3)


def test_means_are_over_classes_that_were_seen():
    results = summarise(counted(cat=(1.0, 1, 0, 0), sky=(0.0, 0, 1, 0)), CATEGORIES)
    assert (results["PQ"], results["PQ_th"], results["PQ_st"]) == pytest.approx((50, 100, 0))
    assert math.isnan(results["PQ-dog"])


def test_nothing_seen_is_nan_and_no_error():
    results = summarise(PQStat(), CATEGORIES)
    assert all(math.isnan(value) for value in results.values())
    assert {"PQ", "SQ_th", "RQ_st", "PQ-sky"} <= set(results)
