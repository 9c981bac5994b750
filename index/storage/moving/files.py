"""The files of an export: JSON lines, arrays and checksums. What is read may have been made by a stranger."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ValidationError

from index.errors import MovingError
from index.storage.moving.format import Checksum

Model = TypeVar("Model", bound=BaseModel)

BLOCK = 1 << 20
"""Bytes read at once."""

LONGEST_LINE = 64 << 20
"""Most bytes of a line, or of a manifest."""


def damaged(path: Path, what: str) -> MovingError:
    """The error of a file that is not as it was written, or was never written by an export."""
    return MovingError(
        f"{path.parent.name}/{path.name} in the export {what}. Nothing of it is used: export again, or copy it again."
    )


def readable(folder: Path, *names: str) -> Path:
    """The path of a file of an export, which is a plain file inside it."""
    path = folder.joinpath(*names)
    if not path.is_file():
        raise damaged(path, "is missing")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise damaged(path, "is a link to a file elsewhere")
    return path


def checksum(path: Path) -> Checksum:
    """Size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return Checksum(bytes=size, sha256=digest.hexdigest())


def write_line(file: IO[bytes], line: BaseModel) -> None:
    """Append a model as a line of JSON."""
    content = json.dumps(line.model_dump(mode="json"), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    file.write(content.encode("utf-8") + b"\n")


def write_lines(path: Path, lines: Iterable[BaseModel]) -> int:
    """Write a file of lines to the disk; returns how many there are."""
    count = 0
    with path.open("wb") as file:
        for line in lines:
            write_line(file, line)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


def read_lines(path: Path, model: type[Model]) -> Iterator[Model]:
    """The lines of a file. Raises :class:`~index.errors.MovingError` at the first that is none of the model's."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise damaged(path, f"has a line {number} of more than {LONGEST_LINE} bytes")
            yield _parsed(path, line, model, f"line {number}")


def read_model(path: Path, model: type[Model]) -> Model:
    """The model in a file of JSON; raises :class:`~index.errors.MovingError`."""
    if path.stat().st_size > LONGEST_LINE:
        raise damaged(path, f"has more than {LONGEST_LINE} bytes")
    return _parsed(path, path.read_bytes(), model, "content")


def _parsed(path: Path, content: bytes, model: type[Model], where: str) -> Model:
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # finds lone surrogates
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise damaged(path, f"says what it may not: {where}, {place or 'all of it'}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise damaged(path, f"is damaged: {where} is no JSON") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def begin_array(file: IO[bytes], dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Write the head of an array of this shape, whose rows the caller writes behind it."""
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def open_array(path: Path, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """An array of a file, mapped; where the ``shape`` has none, any length will do.

    Raises :class:`~index.errors.MovingError` where the file holds anything else.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(version)
            stored, fortran, stored_dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
    except Exception:  # numpy parses what a stranger may have written
        raise damaged(path, "is damaged: it does not begin like a NumPy array of version 1.0") from None
    fits = len(stored) == len(shape) and all(
        size >= 0 and wanted in (None, size) for size, wanted in zip(stored, shape, strict=True)
    )
    if not fits or fortran or stored_dtype != np.dtype(dtype):
        raise damaged(path, f"has {stored_dtype} {list(stored)} instead of {np.dtype(dtype)} {list(shape)}")
    if path.stat().st_size != offset + math.prod(stored) * stored_dtype.itemsize:
        raise damaged(path, "is damaged: its length is not that of its array")
    if math.prod(stored) == 0:
        return np.empty(stored, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=stored)
