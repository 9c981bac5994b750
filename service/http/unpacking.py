"""Bodies that were sent packed (``Content-Encoding: gzip``), unpacked as they arrive."""

from __future__ import annotations

import zlib
from typing import Final

from service.errors import InvalidRequest, UnsupportedEncoding

READ_ENCODINGS: Final = "gzip, deflate, identity"
"""What ``Accept-Encoding`` says beside the refusal of any other."""

_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 47}
"""How zlib finds the header of each; 47 also takes gzip."""


class Unpacker:
    """One body, unpacked block by block."""

    def __init__(self, encoding: str) -> None:
        """Raises :class:`~service.errors.UnsupportedEncoding` for an encoding that is not read."""
        if encoding not in _WINDOWS:
            raise UnsupportedEncoding(
                f"The Content-Encoding {encoding!r} is not read here. Send the body as it is, or as one of: "
                f"{READ_ENCODINGS}."
            )
        self._encoding = encoding
        self._stream = zlib.decompressobj(_WINDOWS[encoding])

    def unpack(self, block: bytes, most: int, *, final: bool) -> bytes:
        """What a block unpacks to, or a byte more than ``most``: then there is more than may be read.

        Raises :class:`~service.errors.InvalidRequest` where the body is damaged or ends too soon.
        """
        pieces: list[bytes] = []
        room = most + 1
        try:
            while block and room:
                if self._stream.eof:
                    self._stream = zlib.decompressobj(_WINDOWS[self._encoding])  # a body may have several parts
                pieces.append(self._stream.decompress(block, room))
                room -= len(pieces[-1])
                block = self._stream.unconsumed_tail or self._stream.unused_data
        except zlib.error as error:
            raise InvalidRequest(f"The body is no {self._encoding}, as its Content-Encoding says: {error}.") from None
        if final and room and not self._stream.eof:
            raise InvalidRequest(f"The {self._encoding} body ends too soon. Send it again.")
        return b"".join(pieces)
