"""The checkpoint between two: each parameter lies between theirs, and so do the shares of the question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from index.encoders.checkpoint import read_config
from index.encoders.loading import load_encoder
from index.search.positions import Positions
from tests.trainer.learners import WITH_SIGNALS, make_learner, make_recipe, unsettle
from trainer.command_line.main import main
from trainer.errors import RecipeError
from trainer.hyperparameters import Hyperparameters
from trainer.learning.checkpoints import average, write_checkpoint


def checkpoint(base: Path, folder: Path, seed: int, **fields: Any) -> Path:
    """A checkpoint whose trained parameters have been moved at random."""
    settings = Hyperparameters(stop=True)
    fields = WITH_SIGNALS | fields
    learner = make_learner(base, settings, **fields)
    unsettle(learner)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in learner.masters.values.values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    learner.masters.publish()
    write_checkpoint(folder, make_recipe(base, hyperparameters=settings, **fields), learner, {})
    return folder


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    encoder = load_encoder(folder, device="cpu", dtype=torch.float32)
    assert encoder.action_tower.projection is not None
    modules = {
        "state": encoder.state_tower.model,
        "action": encoder.action_tower.model,
        "projection": encoder.action_tower.projection,
        "heads": encoder.heads,
    }
    found = {f"{part}.{name}": value for part, module in modules.items() for name, value in module.named_parameters()}
    assert encoder.stopping.action is not None
    return {**found, "stop": torch.from_numpy(encoder.stopping.action)}


@pytest.fixture(scope="module")
def pair(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    first = checkpoint(tiny_base, folder / "a", 1, first_share=0.2)
    return first, checkpoint(tiny_base, folder / "b", 2, first_share=0.6)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_every_parameter_lies_between_those_of_the_two(tmp_path: Path, pair: tuple[Path, Path], share: float) -> None:
    average(*pair, share, tmp_path / "out")
    first, second, between = (parameters(folder) for folder in (*pair, tmp_path / "out"))
    assert between.keys() == first.keys() == second.keys()
    for name, value in between.items():
        torch.testing.assert_close(value, (1 - share) * first[name] + share * second[name], atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(first[name], second[name]) for name in first)
    configs = [read_config(folder) for folder in (*pair, tmp_path / "out")]
    for name in ("w", "b", "first_share"):
        a, b, c = (getattr(config, name) for config in configs)
        assert c == pytest.approx((1 - share) * a + share * b)
    assert configs[2].training == {"average": [config.training for config in configs[:2]], "share": share}
    assert configs[2].stopping is not None
    assert configs[2].stopping.calibration is None


def test_checkpoints_of_different_kinds_have_no_average(
    tmp_path: Path, pair: tuple[Path, Path], tiny_base: Path
) -> None:
    other = checkpoint(tiny_base, tmp_path / "other", 3, positions=Positions(levels=4, dimension=4))
    with pytest.raises(RecipeError, match="differ in positions"):
        average(pair[0], other, 0.5, tmp_path / "out")
    plain = checkpoint(tiny_base, tmp_path / "plain", 3, surroundings=False)
    for two in ((plain, pair[0]), (pair[0], plain)):
        with pytest.raises(RecipeError, match="differ in surroundings"):
            average(*two, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["average", *map(str, pair), str(tmp_path / "out")]
    assert main([*command, "--share", "2"]) != 0
    assert "--share" in capsys.readouterr().err
    assert main(command) == 0
    assert read_config(tmp_path / "out").first_share == pytest.approx(0.4)
    assert main(command) != 0  # it is not empty
