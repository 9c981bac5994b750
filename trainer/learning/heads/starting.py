"""The heads that a recipe asks for, before anything is learned, or as another run left them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import torch

from index.encoders.checkpoint import read_config, read_heads
from index.encoders.heads import Heads, OrderHead, SurroundingsHead, TermHead
from index.encoders.tokenizer import TextTokenizer
from index.search.signals.lexical import Saturation
from trainer.bases.models import start_directory
from trainer.learning.heads.rarity import rarity_of
from trainer.recipe import Recipe


def initial_heads(recipe: Recipe, base: Path, dimension: int, texts: Iterable[list[str]]) -> Heads:
    """The heads of a recipe.

    Where the checkpoint to start from has a head, it is taken over, unless the recipe wants it anew; rarity is counted
    in the ``texts`` otherwise.
    """
    started = Heads()
    if recipe.start is not None:
        directory = start_directory(recipe.start)
        started = read_heads(directory, read_config(directory))
    for name in recipe.anew:
        setattr(started, name, None)
    order, terms = started.order, started.terms
    if recipe.positions.dimension is None:
        order = None
    elif order is None:
        order = OrderHead(dimension, recipe.positions.dimension)
    if not recipe.lexical:
        terms = None
    elif terms is None:
        rarity, mean_length = rarity_of(TextTokenizer(base), list(dict.fromkeys(chain.from_iterable(texts))))
        terms = TermHead(dimension, torch.from_numpy(rarity), Saturation(mean_length=mean_length))
    surroundings = (started.surroundings or SurroundingsHead(dimension)) if recipe.surroundings else None
    return Heads(order, terms, surroundings)
