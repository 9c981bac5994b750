"""The trainer: makes checkpoints, measures them, and teaches them when to stop.

A :mod:`~trainer.recipe` with its :mod:`~trainer.hyperparameters` says what a run learns from, and how; ``recipes`` has
those of the default checkpoint. ``datasets`` read files into questions, ``tasks`` mix those that a recipe names.
``learning`` trains a base model (``bases``) on the mixture, by playing episodes over its questions, and writes a
checkpoint. ``readers`` are frozen language models that say how probable an answer is, given some texts; ``judging``
lets one say which chunks questions need, ``answering`` what it answers from those that are found. ``evaluation`` plays
test sets with a checkpoint or another way of retrieving and counts what is found. ``stopping`` fits the stop rules of a
checkpoint and judges them. ``adapting`` does most of this with the documents of a running service. ``command_line`` is
what ``python -m trainer`` understands.

Rooms import one way: errors, hyperparameters, datasets, recipe, bases, then tasks and readers, then evaluation, then
judging and answering, then learning and stopping, then adapting, then command_line. What is trained is what is served:
chunking, positions, scoring and stepping come from :mod:`index`.
"""
