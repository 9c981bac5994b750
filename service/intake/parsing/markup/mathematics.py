"""Formulas as lines of text: MathML, and its counterpart in Office files.

``1/2``, ``10^6``, ``√(x + 1)``: what a reader would type. Parts of more than one character get parentheses where the
line would otherwise mean something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_SIMPLE: Final = re.compile(r"-?[\w.,]+|\(.*\)")
_SPACED: Final = re.compile(r"[=<>≤≥≠≈≡→⇒±×÷·∈+\-−*/]")
_WORDLIKE: Final = re.compile(r"[+\-−]?\d+(?:[.,]\d+)*|[+\-−]|[^\W_]")


def raised(text: str, before: str) -> str:
    """A superscript as text; ``before`` is the character that it stands behind.

    Ten to the sixth is no 106: numbers, signs and single letters behind a letter, a digit or a parenthesis get a caret.
    Words stay, as in 1st.
    """
    text = text.strip()
    if not text or not (before.isalnum() or before in ")]"):
        return text
    if _WORDLIKE.fullmatch(text):
        return f"^{text}"
    return f"^({text})" if any(sign.isdigit() or sign in "+-−*/=" for sign in text) and text[0] not in "([" else text


def lowered(text: str, before: str) -> str:
    """A subscript as text: glued to a letter, as in H2O, and behind an underscore where it would lengthen a number."""
    text = text.strip()
    return f"_{text}" if text and before.isdigit() else text


def grouped(text: str) -> str:
    """The text in parentheses, unless it is one number, one name, or in parentheses."""
    return text if _SIMPLE.fullmatch(text) else f"({text})"


def mathml(element: Any) -> str:
    """The line that a ``<math>`` element of an lxml tree stands for."""
    return re.sub(r"\s+", " ", _mathml(element)).strip()


def _name(element: Any) -> str:
    return element.tag.rpartition("}")[2].rpartition(":")[2].lower() if isinstance(element.tag, str) else ""


def _children(element: Any) -> list[str]:
    return [_mathml(child) for child in element if _name(child)]


def _mathml(element: Any) -> str:
    name = _name(element)
    if name in {"annotation", "annotation-xml"}:
        return ""
    children = _children(element)
    if name in _FORMS and len(children) >= _FORMS[name][0]:
        return _FORMS[name][1](children)
    if not children:
        text = (element.text or "").strip()
        return f" {text} " if name == "mo" and _SPACED.fullmatch(text) else text
    return "".join(children)


def _table(children: list[str]) -> str:
    return "[" + "; ".join(child.strip() for child in children) + "]"


_FORMS: Final[Mapping[str, tuple[int, Callable[[list[str]], str]]]] = {
    "mfrac": (2, lambda parts: f"{grouped(parts[0].strip())}/{grouped(parts[1].strip())}"),
    "msup": (2, lambda parts: f"{grouped(parts[0].strip())}^{grouped(parts[1].strip())}"),
    "msub": (2, lambda parts: f"{parts[0].strip()}_{grouped(parts[1].strip())}"),
    "msubsup": (3, lambda parts: f"{parts[0].strip()}_{grouped(parts[1].strip())}^{grouped(parts[2].strip())}"),
    "munder": (2, lambda parts: f"{parts[0].strip()}_{grouped(parts[1].strip())}"),
    "mover": (2, lambda parts: f"{parts[0].strip()}^{grouped(parts[1].strip())}"),
    "munderover": (3, lambda parts: f"{parts[0].strip()}_{grouped(parts[1].strip())}^{grouped(parts[2].strip())} "),
    "msqrt": (1, lambda parts: f"√{grouped(''.join(parts).strip())}"),
    "mroot": (2, lambda parts: f"root({parts[1].strip()}, {parts[0].strip()})"),
    "mtable": (1, _table),
    "mtr": (1, lambda parts: ", ".join(part.strip() for part in parts)),
}
"""For each element the fewest children that it needs, and how their lines make one."""
