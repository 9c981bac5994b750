"""Tasks: the questions a run trains and validates on, from the data sets that a recipe names.

:func:`~trainer.tasks.mixture.build_mixture` turns each task of a recipe into sources, by the module of its kind:
``babi`` and ``ruler`` hide facts in the ``background`` of books, ``documents`` are the files of data sets, whose
labels a frozen reader's ``judgements`` can replace. What a ``source`` gives are questions, drawn for the learner and
fixed for validation.
"""
