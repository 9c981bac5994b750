"""The proxy before replicas: it lets through, and waits for, all that the service itself would."""

from __future__ import annotations

import re
from pathlib import Path

from qrag.wire.documents import METADATA_BYTES
from service.settings import Settings

CONFIGURATION = (Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "replicas.conf").read_text()


def number(pattern: str) -> int:
    (digits,) = re.findall(pattern, CONFIGURATION)
    return int(digits)


def test_it_waits_longer_than_the_service_for_an_answer() -> None:
    assert number(r"proxy_read_timeout (\d+)s;") > Settings.model_fields["answer_seconds"].default


def test_it_takes_the_address_of_an_upload_with_all_its_metadata() -> None:
    encoded = 3  # %XX for each byte
    assert number(r"large_client_header_buffers \d+ (\d+)k;") << 10 > encoded * METADATA_BYTES
