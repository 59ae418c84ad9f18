from itertools import permutations

import pytest
import torch

from mask_transformers.matching.hungarian import hungarian_match


def test_the_assignment_has_the_least_cost_of_all():
    for _ in range(20):
        cost = torch.randn(5, 3)
        queries, targets = hungarian_match(cost)
        assert sorted(targets.tolist()) == [0, 1, 2]
        least = min(sum(cost[q, t] for t, q in enumerate(p)) for p in permutations(range(5), 3))
        torch.testing.assert_close(cost[queries, targets].sum(), least)


def test_query_indices_ascend():
    queries, _ = hungarian_match(torch.randn(30, 12))
    assert queries.tolist() == sorted(set(queries.tolist()))


def test_more_targets_than_queries():
    queries, targets = hungarian_match(torch.tensor([[5.0, 1.0, 9.0], [2.0, 7.0, 8.0]]))
    assert queries.tolist() == [0, 1]
    assert targets.tolist() == [1, 0]


def test_no_targets():
    queries, targets = hungarian_match(torch.zeros(4, 0))
    assert len(queries) == len(targets) == 0


def test_half_precision_costs_are_accepted():
    queries, _ = hungarian_match(torch.eye(3, dtype=torch.bfloat16))
    assert len(queries) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_costs_that_are_not_finite_name_the_image(value):
    cost = torch.zeros(3, 2)
    cost[1, 1] = value
    with pytest.raises(FloatingPointError, match=r"image street/1\.jpg .*SOLVER\.BASE_LR"):
        hungarian_match(cost, "street/1.jpg")
    with pytest.raises(FloatingPointError, match="unnamed"):
        hungarian_match(cost)
