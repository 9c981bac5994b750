"""Small random models of the architectures that a checkpoint can be made of, each with a tokenizer of its kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from index.encoders.checkpoint import Pooling
from tests.random_checkpoints import BASE_MODEL


def bert(vocabulary: int) -> PreTrainedModel:
    """As contriever, and as all-MiniLM."""
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    return BertModel(config)


def xlm_roberta(vocabulary: int) -> PreTrainedModel:
    """As multilingual-e5: positions count from the padding id, which is not zero."""
    torch.manual_seed(5)
    config = XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    return XLMRobertaModel(config)


def modernbert(vocabulary: int) -> PreTrainedModel:
    """As gte-modernbert: rotary positions, local and global layers by turns."""
    torch.manual_seed(5)
    config = ModernBertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=256,
        local_attention=16,
        pad_token_id=0,
        bos_token_id=101,
        eos_token_id=102,
        cls_token_id=101,
        sep_token_id=102,
    )
    return ModernBertModel(config)


def qwen3(vocabulary: int) -> PreTrainedModel:
    """As Qwen3-Embedding: causal attention, rotary positions."""
    torch.manual_seed(5)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
    )
    return Qwen3Model(config)


def base_tokenizer() -> PreTrainedTokenizerFast:
    """The one of MiniLM."""
    loaded = AutoTokenizer.from_pretrained(BASE_MODEL)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    words = [f"▁{word}" for word in ("query", "passage", "the", "ball", "is", "red")]
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = [(token, 0.0) for token in specials] + [(word, -3.0) for word in words]
    vocabulary += [(character, -6.0) for character in "▁:.abcdefghijklmnopqrstuvwxyz"]
    backend = Tokenizer(models.Unigram(vocabulary, 3))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    end = "<|endoftext|>"
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, special_tokens=[end], show_progress=False)
    backend.train_from_iterator(["the ball is red, the red ball is the ball"], trainer)
    at_end = [(end, backend.token_to_id(end))]
    backend.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=at_end)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, eos_token=end, pad_token=end
    )


class Architecture(NamedTuple):
    """How to make a model and its tokenizer, and how its embeddings are pooled."""

    model: Callable[[int], PreTrainedModel]
    """Called with the size of the vocabulary."""
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    pooling: Pooling

    def make(self) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        """The model, in evaluation mode, and the tokenizer."""
        tokenizer = self.tokenizer()
        model = self.model(len(tokenizer))
        torch.nn.Module.eval(model)
        return model, tokenizer


ARCHITECTURES = {
    "bert-cls": Architecture(bert, base_tokenizer, "cls"),
    "bert-last": Architecture(bert, base_tokenizer, "last"),
    "bert-mean": Architecture(bert, base_tokenizer, "mean"),
    "modernbert-cls": Architecture(modernbert, base_tokenizer, "cls"),
    "qwen3-last": Architecture(qwen3, byte_tokenizer, "last"),
    "xlm-roberta-mean": Architecture(xlm_roberta, sentencepiece_tokenizer, "mean"),
}


def write_base(directory: Path, architecture: str) -> Path:
    """Write the files of a base model; returns its folder."""
    model, tokenizer = ARCHITECTURES[architecture].make()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
