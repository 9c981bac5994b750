"""The index is a package of its own, and so are its tests: they import neither the service nor the trainer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
import pytest

status = pytest.main(["-q", "-p", "no:cacheprovider", sys.argv[1]])
loaded = {name.partition(".")[0] for name in sys.modules}
assert "index" in loaded
assert not loaded & {"service", "trainer", "fastapi"}, loaded
sys.exit(status)
"""


def test_a_test_of_the_index_imports_neither_service_nor_trainer() -> None:
    test = "tests/index/test_codes.py::test_vectors_of_zeros_are_their_codes"
    ended = subprocess.run([sys.executable, "-c", PROGRAM, test], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout
