"""Office documents: ZIP archives of XML parts.

``package`` opens them and refuses what is hostile; ``docx`` reads Word documents, with ``numbering`` for what their
lists and headings are numbered with and ``formulas`` for equations.
"""
