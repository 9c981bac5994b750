from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import hypothesis
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from tests.architectures import write_base
from tests.engines.postgres import PostgresServer, postgres_server
from tests.random_checkpoints import calibrate_at_random, write_random_checkpoint

# Every client of httpx reads all certificate authorities, 30 ms for a connection to loopback: once is enough.
ssl.create_default_context = lru_cache(ssl.create_default_context)  # type: ignore[assignment]

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
def postgres() -> Iterator[PostgresServer]:
    """A database server for all tests of a process, which are skipped where there is none."""
    with postgres_server(durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def calibrated_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like ``tiny_checkpoint``, with stop rules that never stop unless a chunk costs more than by default."""
    directory = tmp_path_factory.mktemp("calibrated-checkpoint")
    calibrate_at_random(directory, write_random_checkpoint(directory, seed=1))
    return directory


@pytest.fixture(scope="session")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random cross-encoder."""
    base = write_base(tmp_path_factory.mktemp("base"), "bert-mean")
    folder = tmp_path_factory.mktemp("reranker")
    torch.manual_seed(1)
    config = AutoConfig.from_pretrained(base, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder
