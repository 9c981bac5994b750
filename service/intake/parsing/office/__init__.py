"""Office documents: ZIP archives of XML parts.

``package`` opens them and refuses what is hostile; ``docx`` reads Word documents, with ``numbering`` for what their
lists and headings are numbered with and ``formulas`` for equations. ``graphics`` reads charts and diagrams, and
``comments`` who says what of a cell or slide, for all of these and for workbooks.
"""
