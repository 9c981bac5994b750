"""The Dockerfile's stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.dockerfile import Stage, read_dockerfile


@pytest.fixture(scope="session")
def stages() -> dict[str, Stage]:
    return read_dockerfile((Path(__file__).parents[2] / "Dockerfile").read_text())
