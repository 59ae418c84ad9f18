import pytest
import torch

from mask_transformers.matching.fixed import fixed_match
from mask_transformers.structures import Targets


def _targets(*labels):
    return Targets(torch.tensor(labels, dtype=torch.long), torch.ones(len(labels), 2, 2), "a.png")


def test_query_i_stands_for_class_i():
    queries, chosen = fixed_match(5, _targets(4, 0, 2))
    assert queries.tolist() == [0, 2, 4]
    assert chosen.tolist() == [1, 2, 0]


def test_no_targets():
    queries, chosen = fixed_match(5, _targets())
    assert len(queries) == len(chosen) == 0


def test_classes_that_do_not_fit_name_the_image():
    with pytest.raises(ValueError, match=r"a\.png holds a class several times"):
        fixed_match(5, _targets(1, 3, 1))
    with pytest.raises(ValueError, match=r"a\.png holds class 5, .* 5 queries"):
        fixed_match(5, _targets(1, 5))
