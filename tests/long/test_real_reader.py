"""SmolLM2 itself, where it was fetched: it reads, asks, judges, and scores the same behind an endpoint."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch

from tests.trainer.completions import Answer, Scored, Scorer, completions, llama_cpp_python, vllm
from trainer.adapting.drafts import draft
from trainer.bases.language_models import SMOLLM2
from trainer.bases.models import models_folder
from trainer.datasets.question import Question
from trainer.judging.judge import Judge
from trainer.judging.support import find_support
from trainer.readers.endpoint import EndpointReader
from trainer.readers.local import LocalReader, load_reader
from trainer.readers.protocol import Prompt, Request, generated, scored

TEXTS = (
    "The mill was sold to Pieter Bosman, who paid nine hundred guilders in the spring of that year.",
    "In Leiden there lived Pieter Bosman, by the water behind the old weigh house, with two sisters.",
    "It rained for most of June, and the bridges stood under water until the middle of July.",
)


@pytest.fixture(scope="module")
def smollm2() -> LocalReader:
    """The real small reader in float32; tests are skipped where it was not fetched."""
    path = models_folder() / SMOLLM2.name
    if not path.is_file():
        pytest.skip(f"{path} is not there: python -m trainer fetch smollm2")
    return load_reader(path, torch.device("cpu"), torch.float32)


def test_a_real_model_reads_a_passage(smollm2: LocalReader) -> None:
    question = "Which pump feeds tank 4?"
    evidence = Prompt(question, ("Tank 4 is fed by pump P-17, tank 5 by pump P-20.",))
    requests = [Request(evidence, "P-17"), Request(evidence, "P-20"), Request(Prompt(question), "P-17")]
    right, wrong, nothing = scored(smollm2, requests).log_probability
    assert right > wrong
    assert right > nothing + 2
    single = np.concatenate([scored(smollm2, [request]).log_probability for request in requests])
    np.testing.assert_allclose([right, wrong, nothing], single, atol=1e-4)
    assert "P-17" in generated(smollm2, [evidence], 12)[0].text


def test_a_real_reader_says_which_chunks_a_question_needs(smollm2: LocalReader) -> None:
    chunks = [
        "Pump P-17 was repaired by the firm Halvorsen in March.",
        "Tank 4 is fed by pump P-17, tank 5 by pump P-20.",
        "The canteen closes at four o'clock on Fridays.",
        "Pump P-20 was repaired by the firm Brandt in May.",
    ]
    question = Question(
        id="pump",
        task="own",
        text="Which firm repaired the pump that feeds tank 4?",
        chunks=chunks,
        counts=(4,),
        support=frozenset(),
        budget=2,
        answers=("Halvorsen",),
    )
    (judgement,) = find_support(Judge(smollm2, "joint"), [question], {"pump": range(4)}, least_gain=4.0, most_chunks=3)
    assert set(judgement.support) == {0, 1}


def test_a_real_reader_asks_about_a_text(smollm2: LocalReader) -> None:
    drafts = [one for seed in range(4) for one in draft(smollm2, TEXTS, 3, 0, seed)]
    assert len(drafts) >= 4
    assert all(one.question.endswith("?") for one in drafts)


def served(reader: LocalReader) -> Scorer:
    """The tokens of a text with their log-probabilities, by the model of a reader in this process."""

    def scorer(text: str) -> Scored:
        ids = reader._tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            steps = torch.log_softmax(reader._model(input_ids=torch.tensor([ids])).logits[0].double(), -1)
        values = [None, *(float(step[token]) for step, token in zip(steps[:-1], ids[1:], strict=True))]
        return [(str(reader._tokenizer.decode([token])), value) for token, value in zip(ids, values, strict=True)]

    return scorer


@pytest.mark.parametrize("form", [llama_cpp_python, vllm])
def test_a_real_model_scores_the_same_behind_an_endpoint(form: Answer, smollm2: LocalReader) -> None:
    town = Prompt("Who lives in 山口?", ("山口 is a town.",))
    mill = Prompt("Where is the mill?", ("The mill is by the river.", "It rained."))
    requests = [Request(mill, "by the river"), Request(Prompt(mill.question), "by the river")]
    requests += [Request(town, "Ana"), Request(town, "山口")]
    with (
        completions(served(smollm2), form) as endpoint,
        closing(EndpointReader(endpoint.url, "a-model", wording=smollm2.wording)) as reader,
    ):
        behind = scored(reader, requests)
    here = scored(smollm2, requests)
    assert behind.log_probability.tolist() == pytest.approx(here.log_probability.tolist(), abs=1e-3)
    assert behind.answer_tokens.tolist() == here.answer_tokens.tolist()
    assert behind.prompt_tokens.tolist() == here.prompt_tokens.tolist()
