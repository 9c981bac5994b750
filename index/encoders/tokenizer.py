"""A model's tokenizer: texts to tokens, without special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer


class TextTokenizer:
    """A model's tokenizer, without special tokens; satisfies :class:`index.chunking.Tokenizer`."""

    def __init__(self, directory: Path) -> None:
        loaded = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self._backend = loaded.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        wrapped = self._backend.encode("a").ids
        bare = self._backend.encode("a", add_special_tokens=False).ids
        before = next(i for i in range(len(wrapped)) if wrapped[i : i + len(bare)] == bare)
        self.before: list[int] = wrapped[:before]
        """Special tokens in front of every input."""
        self.after: list[int] = wrapped[before + len(bare) :]
        """Special tokens behind every input."""
        self.padding: int = loaded.pad_token_id if loaded.pad_token_id is not None else 0
        """The token that fills padded batches."""
        self.special: list[int] = sorted(loaded.all_special_ids)
        """All special tokens."""
        # From here on a "[SEP]" inside a user's text is text, not the separator.
        self._backend.encode_special_tokens = True

    @property
    def vocabulary(self) -> list[str]:
        """Every token as it is spelled, by its id; empty where an id is not used."""
        spelled = [""] * self.size
        for token, number in self._backend.get_vocab().items():
            spelled[number] = token
        return spelled

    @property
    def size(self) -> int:
        """One more than the largest token id."""
        return 1 + max(self._backend.get_vocab().values())

    def spelled(self, ids: Sequence[int]) -> list[str]:
        """Tokens as they are spelled."""
        return [self._backend.id_to_token(number) or "" for number in ids]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return [encoding.ids for encoding in self._encodings(texts)]

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text."""
        return [len(encoding.ids) for encoding in self._encodings(texts)]

    def token_ends(self, text: str) -> list[int]:
        """Where each token of the text ends, as a character offset, in order."""
        return [end for _, end in self._backend.encode(text, add_special_tokens=False).offsets]

    def separator(self, text: str) -> list[int]:
        """Token ids of a separator: the special token of that name, else the text's tokens."""
        special = self._backend.token_to_id(text)
        return [special] if special is not None else self.tokenize([text])[0]

    def _encodings(self, texts: Sequence[str]) -> list:  # type: ignore[type-arg]  # tokenizers has no stubs
        encodings: list = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)  # type: ignore[type-arg]
        return encodings
