"""A training whose loss is no number ends at once, with its learning rate as the cause."""

from __future__ import annotations

import pytest

from nss_train.errors import ParameterError
from nss_train.training.steps.divergence import check_loss


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_ends_the_training(loss: float) -> None:
    with pytest.raises(ParameterError, match="Training diverged") as caught:
        check_loss(loss, learning_rate=0.5)
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == ("training.learning_rate", 0.5)


@pytest.mark.parametrize("loss", [0.0, -1.0, 1e30])
def test_any_number_may_be_a_loss(loss: float) -> None:
    check_loss(loss, learning_rate=0.5)
