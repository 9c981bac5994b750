from __future__ import annotations

from tests.shared_server import shared_client

__all__ = ["shared_client"]
