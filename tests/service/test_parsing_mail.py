"""Mail whose parts are put together in all the ways that mail programs have: no text of it is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from qrag.wire.media_types import MediaType
from tests.service.files import Extract
from tests.service.outcomes import Outcome

PDF = "Content-Type: application/pdf\nContent-Disposition: inline; filename=report.pdf\n\nx"
PICTURE = "Content-Type: image/png\nContent-Disposition: inline; filename=logo.png\n\nx"


def text(words: str, kind: str = "plain", more: str = "") -> str:
    return f"Content-Type: text/{kind}; charset=utf-8\n{more}\n{words}"


def parts(kind: str, *inner: str) -> str:
    """A part of these parts."""
    mark = f"{kind}{sum(map(len, inner))}"
    return f"Content-Type: multipart/{kind}; boundary={mark}\n\n" + "".join(
        f"--{mark}\n{part}\n" for part in (*inner, "")
    ).replace(f"--{mark}\n\n", f"--{mark}--\n")


FORWARDED = "Content-Type: message/rfc822\n\nSubject: Old\n\nforwarded"


@pytest.mark.parametrize(
    ("content", "expected", "left_out"),
    [
        (parts("mixed", text("cover"), text("<p>report</p>", "html")), ["cover", "report"], []),
        (
            parts("mixed", parts("alternative", text("body"), text("<p>body</p>", "html")), text("footer of the list")),
            ["body", "footer of the list"],
            [],
        ),
        (parts("alternative", text(""), text("<p>only here</p>", "html")), ["only here"], []),
        (parts("alternative", text("<p>same</p>", "html"), text("plain")), ["plain"], []),
        (parts("alternative", text("plain"), text("BEGIN:VCALENDAR", "calendar")), ["plain"], []),
        (
            parts("alternative", text("plain"), parts("mixed", text("<p>plain</p>", "html"), PDF, PICTURE)),
            ["plain"],
            ["report.pdf"],
        ),
        (
            parts("alternative", text("plain"), parts("related", text("<img src=cid:x>", "html"), PICTURE)),
            ["plain"],
            [],
        ),
        (
            parts(
                "signed",
                parts("mixed", text("signed"), text("attached", more="Content-Disposition: attachment\n"), PDF),
                "Content-Type: application/pgp-signature\n\nx",
            ),
            ["signed", "attached"],
            ["report.pdf", "application/pgp-signature"],
        ),
        (
            parts("mixed", text("a digest"), parts("digest", FORWARDED, FORWARDED)),
            ["a digest", "Subject: Old", "forwarded", "Subject: Old", "forwarded"],
            [],
        ),
        (text("attached itself", more="Content-Disposition: attachment\n"), ["attached itself"], []),
    ],
)
def test_all_parts_with_text_are_read_once_and_other_files_named(
    tmp_path: Path, content: str, expected: list[str], left_out: list[str]
) -> None:
    found = Outcome(tmp_path, f"Subject: s\nMIME-Version: 1.0\n{content}".encode(), MediaType.MAIL)
    assert found.paragraphs == ["Subject: s", *expected]
    assert found.reading.warnings == [f"The attachment {name} was left out." for name in left_out]


@pytest.mark.parametrize("header", ["To: a:b:c;;d", "From: a@[b", "To: <.@", "To: \n .@b.cYQ=="])
def test_addresses_that_nobody_can_parse_cost_no_message(convert_here: Extract, header: str) -> None:
    read = convert_here(f"Subject: s\n{header}\n\nbody".encode(), MediaType.MAIL)
    assert read == f"Subject: s\n{' '.join(header.split())}\n\nbody"
