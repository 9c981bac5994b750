"""Tasks of kind ``ruler``: needles, generated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trainer.datasets.ruler import generate_ruler
from trainer.recipe import RulerTask
from trainer.tasks.source import Material, Source, fixed_source


def ruler_sources(task: RulerTask, material: Material) -> list[Source]:
    """A source for each variant of a task; raises :class:`~trainer.errors.RecipeError` for a budget too small."""
    return [_source(task, variant, material) for variant in task.variants]


def _source(task: RulerTask, variant: str, material: Material) -> Source:
    generator = np.random.default_rng([ord(letter) for letter in variant])
    questions = [
        generate_ruler(variant, task.tokens, material.background, generator)
        for _ in range(task.questions + task.validation)
    ]
    if task.mine:
        questions = [replace(question, pool=material.background) for question in questions]
    return fixed_source(questions, task.weight, task.validation, task.budget, task.validation)
