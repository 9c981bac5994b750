"""Uploaded files as plain text.

``process`` is the service's side: it finds the media type of an upload and runs a worker process with limits of time,
memory and output. ``worker`` is that process: it looks the media type up in the table of ``formats`` and writes the
text that the reader yields. A format has one module (``html``, ``docx``, ``pdf``, ``markdown``) with one function
``read(source, encoding)``; ``encodings`` finds out how text is encoded, and ``cleaning`` has what several readers do
and say.

To add a format: a module with a reader, its line in :data:`~service.intake.parsing.formats.READERS`, and its media type
in :mod:`qrag.wire.media_types`.
"""
