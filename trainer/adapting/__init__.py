"""Adapting a checkpoint to the documents of a running service, with a frozen reader instead of people's labels.

The chunks of a ``collection`` come over HTTP; a reader ``drafts`` questions, of which those are ``confirmed`` whose
chunks it finds again; or users' own questions (``own``) are judged. The ``adapt`` module trains on them, measures on
those held out, and hands over what wins (``service``).
"""
