"""Two ways compared question by question."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluation.paired import mean_difference, paired_difference


def test_the_interval_is_about_two_standard_errors_wide_on_either_side() -> None:
    generator = np.random.default_rng(1)
    right = generator.random(400)
    left = right + generator.normal(0.1, 0.5, 400)
    mean, low, high = paired_difference(left.tolist(), right.tolist())
    error = (left - right).std() / 20
    assert mean == pytest.approx((left - right).mean())
    assert low == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.15 * error)


def test_what_is_the_same_is_not_significant() -> None:
    assert not paired_difference([0.0, 1.0, 0.5], [0.0, 1.0, 0.5]).significant
    assert paired_difference([1.0] * 9, [0.0] * 9).significant


def test_each_set_weighs_the_same_in_the_mean_of_several() -> None:
    generator = np.random.default_rng(2)
    large, small = generator.normal(0.0, 0.4, 900), generator.normal(0.3, 0.4, 100)
    mean, low, high = mean_difference([(large.tolist(), [0.0] * 900), (small.tolist(), [0.0] * 100)])
    error = np.hypot(large.std() / 30, small.std() / 10) / 2
    assert mean == pytest.approx((large.mean() + small.mean()) / 2)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.15 * error)
