from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from index.encoders.checkpoint import read_config
from trainer.command_line.main import main
from trainer.evaluation.reports import read_report
from trainer.recipe import Recipe

RECORDS = [
    {
        "question": f"Where is the {thing}?",
        "chunks": [f"Mary took the {thing}.", "It rained.", "Mary went to the kitchen.", "The end."],
        "support": [0, 2],
        "budget": 3,
    }
    for thing in ("milk", "book", "lamp")
]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return file


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def one_line(captured: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in captured.readouterr().err.splitlines() if line.startswith("trainer: ")]
    return line


def test_evaluating_writes_result_table_and_plot(
    tiny_checkpoint: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "tiny.json"
    assert run("evaluate", tiny_checkpoint, "--suite", "jsonl", "--data", own, "--out", out, "--device", "cpu") == 0
    (result,) = read_report(out).results
    assert (result.name, result.suite, result.seed) == ("random-32-0", "jsonl", 0)
    assert result.fingerprint == read_config(tiny_checkpoint).fingerprint
    assert result.machine["torch"]
    (row,) = result.rows
    assert (row.task, row.questions, row.budget, len(row.recall_by_step)) == ("own", 3, 3, 3)
    table = out.with_suffix(".md").read_text()
    assert "| task | budget | random-32-0 |" in table
    assert table in capsys.readouterr().out
    assert (tmp_path / "results" / "tiny-by-budget.png").stat().st_size > 1000


def test_a_checkpoint_beside_the_baselines_gets_its_own_rows(
    tiny_checkpoint: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "baselines.json"
    chosen = ("--only", "bm25", "--checkpoint", f"mine={tiny_checkpoint}", "--questions", "2")
    assert run("baselines", *chosen, "--suite", "jsonl", "--data", own, "--out", out, "--device", "cpu") == 0
    bm25, mine = read_report(out).results
    assert (bm25.name, bm25.fingerprint, bm25.rows[0].questions) == ("bm25", None, 2)
    assert (mine.name, mine.rows[0].questions) == ("mine", 2)
    assert mine.fingerprint is not None
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "baselines-jsonl-bm25-by-budget.png",
        "baselines-jsonl-mine-by-budget.png",
    }
    capsys.readouterr()
    assert run("report", out, out) == 0
    assert "| task | budget | bm25 | mine |" in capsys.readouterr().out
    assert run("report", out, out, "--out", tmp_path / "table.md") == 0
    assert "± 0.000" in (tmp_path / "table.md").read_text()
    assert run("plot", out, "--out", tmp_path / "plots") == 0
    assert len(list((tmp_path / "plots").iterdir())) == 2


def test_a_checkpoint_is_measured_with_a_second_look_too(
    tiny_checkpoint: Path, reranker: Path, own: Path, tmp_path: Path
) -> None:
    out = tmp_path / "looked.json"
    chosen = ("--only", "--checkpoint", f"mine={tiny_checkpoint}", "--reranker", reranker, "--second-look", "3")
    assert run("baselines", *chosen, "--suite", "jsonl", "--data", own, "--out", out, "--device", "cpu") == 0
    assert [result.name for result in read_report(out).results] == ["mine", "mine-reranked"]


def test_a_beam_is_reported(tiny_checkpoint: Path, own: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    beam = ("--beam-width", "3", "--name", "planned")
    assert run("evaluate", tiny_checkpoint, *beam, "--suite", "jsonl", "--data", own, "--out", out) == 0
    (result,) = read_report(out).results
    assert (result.name, result.beam_width) == ("planned", 3)


def test_training_gets_what_the_command_line_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text("name: small\ntasks: [{kind: jsonl, path: own.jsonl}]\n")
    given: dict[str, Any] = {}

    def train(recipe: Recipe, data: Path, run: Path, **options: Any) -> Path:
        given.update(options, recipe=recipe, data=data, run=run)
        return run / "best"

    monkeypatch.setattr("trainer.command_line.commands.train", train)
    changed = (
        "--set",
        "seed=3",
        "--set",
        "hyperparameters.gamma=0.9",
        "--resume",
        "--device",
        "cpu",
        "--cache",
        "kept",
    )
    assert run("train", recipe_file, "--data", tmp_path, "--out", tmp_path / "run", *changed) == 0
    assert given["recipe"].seed == 3
    assert given["recipe"].hyperparameters.gamma == 0.9
    assert (given["data"], given["run"], given["resume"]) == (tmp_path, tmp_path / "run", True)
    assert given["device"].type == "cpu"
    assert given["cache"] == Path("kept")


def test_exporting_writes_a_whole_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert run("export", tiny_checkpoint, tmp_path / "exported") == 0
    assert read_config(tmp_path / "exported").name == "random-32-0"


def test_what_cannot_be_done_is_one_line_and_exit_status_1(
    tiny_checkpoint: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    suite = ("--suite", "jsonl", "--data", own, "--out", tmp_path / "a.json")
    for arguments, message in (
        (("evaluate", nowhere, *suite), "is not a checkpoint"),
        (("evaluate", tiny_checkpoint, *suite[:2], "--data", nowhere, *suite[4:]), "nowhere: cannot be opened"),
        (("evaluate", tiny_checkpoint, *suite, "--device", "quantum"), "is no device of torch"),
        (("evaluate", tiny_checkpoint, "--suite", "ruler-files", *suite[2:]), "no questions"),
        (("train", nowhere, "--out", tmp_path / "run"), "nowhere does not exist"),
        (("train", nowhere, "--out", tmp_path / "run", "--set", "gamma"), "write name=value"),
        (("train", nowhere, "--out", tmp_path / "run", "--set", "gamma=[1"), "is not YAML"),
        (("report", nowhere), "nowhere: cannot be read"),
        (
            (
                "baselines",
                "--only",
                "--suite",
                "jsonl",
                "--data",
                own,
                "--out",
                tmp_path / "o.json",
                "--second-look",
                3,
            ),
            "--second-look needs a cross-encoder",
        ),
        (("baselines", "--only", "bm25", *suite, "--set", "pooling=cls"), "name it with --recipe"),
        (("report", own), "is no result of an evaluation"),
        (("plot", nowhere, "--out", tmp_path), "nowhere: cannot be read"),
        (("export", tiny_checkpoint, tmp_path), "is not empty"),
    ):
        assert run(*arguments) == 1, arguments
        assert message in one_line(capsys)
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["evaluate", "x", "--suite", "nothing", "--out", "y"], "invalid choice: 'nothing'"),
        (["evaluate", "x", "--suite", "jsonl", "--out", "y", "--questions", "0"], "0 is no whole number from 1 on"),
        (["baselines", "--suite", "jsonl", "--out", "y", "--checkpoint", "dir"], "dir is not LABEL=DIR"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_module_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "report", str(tmp_path / "nowhere.json")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
