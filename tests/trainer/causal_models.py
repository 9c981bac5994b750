"""Small random causal models of several architectures, and a tokenizer for which a character can be several tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

AUTO: Any = AutoModelForCausalLM
FAST: Any = PreTrainedTokenizerFast
"""Without types in transformers."""

TEXT = "Answer the question in a few words. Question: where is the river? Answer: in the north of the old town."
CHAT = (
    "{% for message in messages %}<|user|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|model|>\n{% endif %}"
)


def tokenizer(*, chat: bool = False) -> PreTrainedTokenizerFast:
    """Bytes, and the pairs of them that a short text is made of."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|user|>", "<|model|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([TEXT], trainer)
    made: PreTrainedTokenizerFast = FAST(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|end|>")
    if chat:
        made.chat_template = CHAT
    return made


def _llama(size: int) -> PretrainedConfig:
    return LlamaConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


def _gpt2(size: int) -> PretrainedConfig:
    """Positions are embeddings: what stands on the left of a text would move it."""
    return GPT2Config(
        vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=512, bos_token_id=0, eos_token_id=0, pad_token_id=0
    )


def _gemma2(size: int) -> PretrainedConfig:
    """A sliding window in every other layer, and logits that are capped behind the vocabulary's matrix."""
    return Gemma2Config(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        num_key_value_heads=2, head_dim=8, sliding_window=16, max_position_embeddings=512, final_logit_softcapping=2.0,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


def _bloom(size: int) -> PretrainedConfig:
    """Distances are biases of the attention."""
    return BloomConfig(
        vocab_size=size, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0, pad_token_id=0
    )


ARCHITECTURES: Mapping[str, Callable[[int], PretrainedConfig]] = {
    "llama": _llama,
    "gpt2": _gpt2,
    "gemma2": _gemma2,
    "bloom": _bloom,
}


def model(architecture: str, size: int) -> PreTrainedModel:
    """Random weights, large enough that no two answers are equally probable."""
    torch.manual_seed(3)
    made: PreTrainedModel = AUTO.from_config(ARCHITECTURES[architecture](size)).float().eval()
    with torch.no_grad():
        for weights in made.parameters():
            if weights.ndim > 1:
                weights.mul_(4)
    return made
