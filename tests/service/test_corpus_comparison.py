"""The comparison of the corpus, without its files: what stands in a source, and what of it counts as lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.corpus import Outcome as Comparison
from benchmarks.corpus import members, report
from benchmarks.sources import SOURCES
from qrag.wire.media_types import MEDIA_TYPE_OF_EXTENSION
from service.intake.parsing.completeness import missing_words
from tests.service.files import docx, paragraph, pdf, shown
from tests.service.outcomes import Outcome
from tests.service.packages import epub, odt, pptx, shape, slide_table, xlsx

FILES: Mapping[str, bytes] = {
    "md": b"---\na: b\n---\n# Mill\n\nSee [the wheel](http://x.example/y) <b>now</b>.\n\n```sh\nrun <it>\n```\n",
    "html": b"<head><title>never</title></head><p>The <b>mi</b>ll<script>never</script><!-- never --> &amp; wheel",
    "docx": docx(paragraph("The mill") + "<w:del><w:r><w:delText>never</w:delText></w:r></w:del>"),
    "pptx": pptx([shape("The mill", placeholder="title") + slide_table(["part", "cost"], ["wheel", "410"])]),
    "xlsx": xlsx({"Prices": [["item", "price"], ["bread", 3.5]], "Never": [["x"]]}, hidden=["Never"]),
    "odt": odt("<text:p>The <text:span>mi</text:span>ll<text:s/>was sold.</text:p>"),
    "epub": epub(["<p>The mill.</p>", "<p>Sold.</p>"]),
    "rtf": rb"{\rtf1{\fonttbl{\f0 Never;}}The {\b mi}ll caf\'e9 \u8364?5.\par}",
    "pdf": pdf([shown(b"The mill"), shown(b"was sold")]),
    "csv": b"item,price\nbread,3\n",
    "json": b'{"mill": {"price": 4711, "sold": null}}',
    "jsonl": b'{"mill": 1}\n{"mill": "two"}\n',
    "eml": b"Subject: The mill\nContent-Type: text/plain\n\nIt was sold.\n",
}


@pytest.mark.parametrize("extension", FILES)
def test_a_source_is_read_and_what_its_text_lacks_is_found(tmp_path: Path, extension: str) -> None:
    texts = list(SOURCES[extension](FILES[extension]))
    words = "".join(texts).lower().split()
    assert words
    assert "never" not in words
    found = Outcome(tmp_path, FILES[extension], MEDIA_TYPE_OF_EXTENSION[f".{extension}"]).text
    assert not missing_words(lambda: texts, [found])
    assert missing_words(lambda: [*texts, "unheard"], [found]) == {"unheard": 1}
    assert missing_words(lambda: texts, [""]).total() >= 2


def test_the_corpus_names_files_of_every_format() -> None:
    files = members()
    assert len(files) >= 40
    assert {file.format for file in files} >= set(SOURCES)
    assert all(file.licence and len(file.sha256) == 64 for file in files)


def test_missing_words_are_lost_where_no_warning_says_so() -> None:
    about = ("mill", "1.0", "MIT", "a.html", "html", 3)
    fine, warned = Comparison(*about, 3, [], []), Comparison(*about, 2, ["wheel"], ["A picture was left out."])
    silent, refused = Comparison(*about, 2, ["wheel"], []), Comparison(*about, 0, [], [], refused="No | text.")
    assert [found.is_lost for found in (fine, warned, silent, refused)] == [False, False, True, True]
    lines = list(report([warned, refused]))
    assert lines[2] == "| mill 1.0 | MIT | a.html | html | 3 | 2 | 1 | A picture was left out. |"
    assert lines[3].endswith("| 0 | No \\| text. |")
