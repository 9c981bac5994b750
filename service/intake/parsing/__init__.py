"""Uploaded files as plain text.

``process`` is the service's side: it runs a worker process with limits of time, memory and output. ``worker`` is that
process: it looks the media type up in the table of ``formats`` and writes the text that the reader yields, and what it
notes in its :class:`~service.intake.parsing.reading.Reading`. A format has one module with one function
``read(source, reading)``, in a room with its kin: ``markup`` (HTML, Markdown, and what all readers make of tables,
formulas and lists), ``office`` (archives of XML parts), ``pdf``, ``records``. ``cleaning`` has what several readers do
and say.

To add a format: a module with a reader, its line in :data:`~service.intake.parsing.formats.READERS`, and its media type
in :mod:`qrag.wire.media_types`.
"""
