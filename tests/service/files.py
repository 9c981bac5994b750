"""Files of every kind to upload, built from their parts, and what the tests of parsing share besides."""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO

from qrag.wire.media_types import MediaType
from service.intake.parsing.process import ParseLimits

MEBIBYTE = 1 << 20

SCANT_MEMORY = ParseLimits(memory_bytes=128 * MEBIBYTE)
"""Enough for a worker to start, and for no more than a few megabytes of document."""

Extract = Callable[..., str]
"""From a document's content and media type, and options by name, to its text."""

# --- DOCX -------------------------------------------------------------------------------------------

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def docx(body: str, parts: Mapping[str, bytes | str] | None = None) -> bytes:
    """Return the smallest package that word processors open, with ``parts`` added to it."""
    document = f'<w:document xmlns:w="{WORD}" xmlns:r="{OFFICE}"><w:body>{body}</w:body></w:document>'
    return packed(
        {
            "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
            '<Default Extension="xml" ContentType="application/xml"/>'
            '<Default Extension="png" ContentType="image/png"/>'
            f'<Override PartName="/word/document.xml" ContentType="{MediaType.DOCX}.main+xml"/></Types>',
            "_rels/.rels": relationships(("r1", "officeDocument", "word/document.xml")),
            "word/document.xml": document,
            **(parts or {}),
        }
    )


def relationships(*targets: tuple[str, str, str]) -> str:
    """A part that relates ids to other parts: ``(id, kind, part)`` each."""
    listed = "".join(
        f'<Relationship Id="{name}" Type="{OFFICE}/{kind}" Target="{part}"/>' for name, kind, part in targets
    )
    return f'<Relationships xmlns="{PACKAGE}/relationships">{listed}</Relationships>'


def packed(parts: Mapping[str, bytes | str]) -> bytes:
    """A ZIP archive of these parts."""
    package = BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else None)
    return package.getvalue()


def changed(package: bytes, parts: Mapping[str, bytes | str]) -> bytes:
    """An archive with other parts, some of which may be new."""
    with zipfile.ZipFile(BytesIO(package)) as archive:
        return packed({**{name: archive.read(name) for name in archive.namelist()}, **parts})


def paragraph(text: str, properties: str = "") -> str:
    """A paragraph of a word processor's document; the text is XML."""
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


# --- PDF --------------------------------------------------------------------------------------------

HELVETICA = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"


def pdf(
    pages: Sequence[bytes],
    font: bytes = HELVETICA,
    more: Sequence[bytes] = (),
    encrypt: PdfEncryption | None = None,
    resources: bytes = b"",
    deflated: int = 0,
) -> bytes:
    """Return a PDF of these page contents, so many times compressed.

    ``more`` objects are numbered from ``4 + 2 * len(pages)``; pages may name them in their ``resources``.
    """
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(pages), kids),
        font,
    ]
    for content in pages:
        number = len(objects) + 2
        objects += [
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>%s>>"
            b"/Contents %d 0 R>>" % (resources, number),
            stream(encrypt.encrypted(content, number) if encrypt else content, deflated=deflated),
        ]
    objects += more
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    trailer = b"/Size %d/Root 1 0 R%s" % (len(objects) + 1, encrypt.trailer if encrypt else b"")
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    out += b"trailer\n<<%s>>\nstartxref\n%d\n%%%%EOF\n" % (trailer, start)
    return bytes(out)


def stream(content: bytes, about: bytes = b"", *, deflated: int = 0) -> bytes:
    """A stream object, so many times compressed."""
    for _ in range(deflated):
        content = zlib.compress(content, 9)
    filters = b"/FlateDecode" * deflated
    return b"<</Length %d/Filter[%s]%s>>\nstream\n%s\nendstream" % (len(content), filters, about, content)


def shown(*lines: bytes) -> bytes:
    """A page's content that shows these lines."""
    return b"BT /F 12 Tf 14 TL 50 750 Td " + b" ".join(b"(%s) Tj T*" % line for line in lines) + b" ET"


class PdfEncryption:
    """The standard security handler of PDF 1.1: RC4 with a key of 40 bits."""

    PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
    IDENTIFIER = b"0123456789abcdef"
    PERMISSIONS = -4

    def __init__(self, user_password: bytes, owner_password: bytes) -> None:
        user, owner = ((password + self.PADDING)[:32] for password in (user_password, owner_password))
        entry = rc4(hashlib.md5(owner).digest()[:5], user)
        permissions = struct.pack("<i", self.PERMISSIONS)
        self.key = hashlib.md5(user + entry + permissions + self.IDENTIFIER).digest()[:5]
        check = rc4(self.key, self.PADDING)
        identifier, entry, check = (value.hex().encode() for value in (self.IDENTIFIER, entry, check))
        self.trailer = b"/ID[<%s><%s>]/Encrypt<</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P %d>>" % (
            identifier,
            identifier,
            entry,
            check,
            self.PERMISSIONS,
        )

    def encrypted(self, content: bytes, number: int) -> bytes:
        """The content of the object ``number``."""
        return rc4(hashlib.md5(self.key + struct.pack("<I", number)[:3] + b"\0\0").digest()[:10], content)


def rc4(key: bytes, data: bytes) -> bytes:
    """The cipher, which is its own inverse."""
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def mapped_font(codes: Mapping[bytes, bytes], number: int) -> tuple[bytes, bytes]:
    """Return a font whose codes mean other Unicode characters, and the object ``number`` that says so."""
    mapping = b" ".join(b"<%s> <%s>" % (a.hex().encode(), b.hex().encode()) for a, b in codes.items())
    table = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /T def /CMapType 2 def "
        b"1 begincodespacerange <00> <ff> endcodespacerange %d beginbfchar %s endbfchar endcmap end end"
        % (len(codes), mapping)
    )
    return HELVETICA[:-2] + b"/ToUnicode %d 0 R>>" % number, stream(table)
