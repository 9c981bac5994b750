from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from tests.random_checkpoints import calibrate_at_random, write_random_checkpoint

# How long an example takes says something about the machine, not about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint with relative positions: dimension 32, loads and runs at once."""
    directory = tmp_path_factory.mktemp("tiny-checkpoint")
    write_random_checkpoint(directory)
    return directory


@pytest.fixture(scope="session")
def calibrated_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like ``tiny_checkpoint``, with stop rules that never stop unless a chunk costs more than by default."""
    directory = tmp_path_factory.mktemp("calibrated-checkpoint")
    calibrate_at_random(directory, write_random_checkpoint(directory, seed=1))
    return directory
