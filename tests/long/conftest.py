from __future__ import annotations

from tests.shared_server import shared_client
from tests.threads import _one_thread

__all__ = ["_one_thread", "shared_client"]
