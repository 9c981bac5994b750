"""Small random models of the supported architectures, as folders that a recipe can name as its base."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedModel, PreTrainedTokenizerBase

from tests.support import BASE_MODEL


def save(directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Write the files of a base model; returns its folder."""
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def write_bert(directory: Path, *, dimension: int = 32, layers: int = 1, seed: int = 0) -> Path:
    """A BERT with the tokenizer of MiniLM, without a pooler as BertModel saves it, float32."""
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dimension,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * dimension,
        max_position_embeddings=128,
    )
    return save(directory, BertModel(config), tokenizer)
