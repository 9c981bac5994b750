"""The media types of uploads, and the file extensions that stand for them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class MediaType(StrEnum):
    """A media type that the service turns into text."""

    PLAIN_TEXT = "text/plain"
    MARKDOWN = "text/markdown"
    HTML = "text/html"
    XHTML = "application/xhtml+xml"
    PDF = "application/pdf"
    DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    DOCM = "application/vnd.ms-word.document.macroenabled.12"
    PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
    XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    ODT = "application/vnd.oasis.opendocument.text"
    RTF = "application/rtf"
    EPUB = "application/epub+zip"
    CSV = "text/csv"
    TSV = "text/tab-separated-values"
    JSON = "text/json"
    JSON_LINES = "application/jsonl"
    MAIL = "message/rfc822"


_TEXT_AS_IT_IS: Final = (
    "ada asm awk bash bat bib c cc cfg clj cmake coffee conf cpp cs css cxx dart diff el elm erl ex exs f90 fish "
    "fs gemspec go gradle graphql groovy h hpp hs hxx ini ipynb java jl js jsx kt kts less lisp log lua m mk ml "
    "mm nim nix org pas patch php pl pm properties proto ps1 pug py pyi r rb rkt rs rst sass scala scm scss sh "
    "sol sql srt sv svelte swift tcl tex text tf toml ts tsx vb vhd vim vtt vue xml yaml yml zig zsh "
).split()
"""Endings of source code, logs, subtitles and settings: text as they are."""

MEDIA_TYPE_OF_EXTENSION: Final = {
    ".txt": MediaType.PLAIN_TEXT,
    ".md": MediaType.MARKDOWN,
    ".markdown": MediaType.MARKDOWN,
    ".html": MediaType.HTML,
    ".htm": MediaType.HTML,
    ".xhtml": MediaType.XHTML,
    ".pdf": MediaType.PDF,
    ".docx": MediaType.DOCX,
    ".docm": MediaType.DOCM,
    ".pptx": MediaType.PPTX,
    ".xlsx": MediaType.XLSX,
    ".odt": MediaType.ODT,
    ".rtf": MediaType.RTF,
    ".epub": MediaType.EPUB,
    ".csv": MediaType.CSV,
    ".tsv": MediaType.TSV,
    ".json": MediaType.JSON,
    ".jsonl": MediaType.JSON_LINES,
    ".ndjson": MediaType.JSON_LINES,
    ".eml": MediaType.MAIL,
    **{f".{ending}": MediaType.PLAIN_TEXT for ending in _TEXT_AS_IT_IS},
}
"""The media type of each file extension, in lower case."""
