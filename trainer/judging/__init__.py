"""What a frozen reader says of evidence, in place of people's labels.

Questions with answers go to a reader (:mod:`trainer.readers`), which says how probable they are with these chunks or
those (``judge``); from that follows which chunks a question needs (``support``), kept in a file
(:mod:`trainer.tasks.judgements`) that tasks of a recipe name beside their data. ``candidates`` says which questions
and chunks, ``opening`` which judge a recipe names.
"""
