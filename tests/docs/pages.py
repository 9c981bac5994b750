"""The pages of the documentation, their blocks of code, and which of these are not run here."""

from __future__ import annotations

from pathlib import Path

from tests.markdown import Block, code_blocks

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))

DATA = {"json", "yaml", "text", "http", "nginx"}
"""Languages in which nothing is commanded."""

NO_COMMAND = "nothing to run: a formula, a folder, a request in outline"
DOCKER = "needs Docker; tests/deploy/test_compose.py and test_images.py check the files"
HOURS = "needs the whole training data and hours"
FOREGROUND = "serves until it is stopped"


def tested_by(test: str) -> str:
    """The reason for a block that another test runs."""
    return f"run by {test}"


README_CHECK = tested_by(".ci/check_readme.py")
LANGCHAIN = tested_by("tests/client/test_langchain.py::test_the_examples_of_the_docs_run")
LLAMA_INDEX = tested_by("tests/client/test_llama_index.py::test_the_example_of_the_docs_runs")
HAYSTACK = tested_by("tests/client/test_haystack.py::test_the_example_of_the_docs_runs")
CLIENT = tested_by("tests/long/test_commands.py::test_the_page_about_the_client_is_true")
PROMTOOL = tested_by("tests/deploy/test_monitoring.py::test_promtool_accepts_the_rules")
JSON_LOG = tested_by("tests/service/test_observing.py::test_json_logs_have_one_object_a_line_and_cannot_be_forged")
REPLICAS = tested_by("tests/engines/test_services.py::test_each_answers_as_a_service_with_everything_in_its_directory")
TRACES = tested_by("tests/service/test_tracing.py::test_a_retrieval_shows_its_phases_inside_the_callers_trace")
HELM = "needs a cluster; tests/deploy/test_helm.py renders and checks the chart"
MODELS = tested_by("tests/service/test_vector_stores.py::test_the_served_checkpoint_is_the_one_model")
QUESTIONS = tested_by(
    "tests/service/test_questions.py::test_questions_are_deleted_one_by_one_by_collection_and_with_it"
)
MOVING = tested_by("tests/service/test_moving.py::test_the_program_of_the_documentation_moves_everything")
COMMANDS_THAT_MOVE = tested_by(
    "tests/service/test_moving_command.py::test_a_service_moves_with_two_commands_and_answers_as_before"
)
DUMP_ALONE = tested_by("tests/index/test_engine_backup.py::test_a_dump_alone_is_enough_to_embed_everything_again")
ADAPTING = tested_by(
    "tests/trainer/test_adapting.py::test_a_run_goes_on_where_it_died_and_activates_nothing_that_does_not_win"
)
JUDGING = tested_by("tests/trainer/test_judging.py::test_the_command_judges_a_file")

NOT_RUN_HERE = {
    ("api.md", "curl http://127.0.0.1:8000/v1/models/qrag-bge-small"): MODELS,
    ("api.md", "curl -X DELETE http://127.0.0.1:8000/questions/qu-5c1d9b0f7a2e4c6d8e0f1a2b"): QUESTIONS,
    ("client.md", "qrag index examples/stories/story-in-a-book.txt --chunking lines --title Story"): CLIENT,
    ("client.md", 'echo "Ana signed the lease in May." | qrag index - --id lease --collection office'): CLIENT,
    ("client.md", "from qrag import Client, StepEvent, Stop"): CLIENT,
    ("client.md", "from qrag import BatchQuestion, Client"): CLIENT,
    ("client.md", "from qrag import Client, Judgement"): CLIENT,
    ("client.md", "import asyncio"): CLIENT,
    ("client.md", "from qrag import Client, NotFound, Unreachable"): CLIENT,
    ("integrations.md", "from langchain_core.language_models import FakeListChatModel"): LANGCHAIN,
    ("integrations.md", "from langchain_core.load import dumpd, load"): LANGCHAIN,
    ("integrations.md", "from llama_index.core.llms import MockLLM"): LLAMA_INDEX,
    ("integrations.md", "from haystack import Pipeline"): HAYSTACK,
    ("operating.md", "docker compose -f docker-compose.yml -f deploy/compose.cpu.yml"): DOCKER,
    ("operating.md", "promtool check rules deploy/prometheus/alerts.yml"): PROMTOOL,
    ("operating.md", "QRAG_LOG_FORMAT=json python -m service"): JSON_LOG,
    ("operating.md", "pip install ./client '.[otel]'"): TRACES,
    ("operating.md", "pip install ./client '.[cpu,engines]'"): REPLICAS,
    ("operating.md", "helm install qrag deploy/helm/qrag"): HELM,
    ("operating.md", "from qrag import Client, DocumentIn"): MOVING,
    ("operating.md", "python -m service export /moves/may"): COMMANDS_THAT_MOVE,
    ("operating.md", "DELETE FROM embedded;"): DUMP_ALONE,
    ("page.md", "apt-get install chromium chromium-driver"): "changes the machine",
    ("quick-start.md", "make serve"): README_CHECK,
    ("quick-start.md", "docker compose -f docker-compose.yml -f deploy/compose.cpu.yml up"): DOCKER,
    ("quick-start.md", "docker compose -f docker-compose.yml -f deploy/compose.cpu.yml down"): DOCKER,
    ("reader.md", "python -m trainer adapt"): ADAPTING,
    ("reader.md", "python -m trainer judge"): JUDGING,
    ("reader.md", "python -m trainer answers"): HOURS,
    ("search.md", "Q(s, i) ="): NO_COMMAND,
    ("stopping.md", "curl ... -d"): NO_COMMAND,
    ("stopping.md", "python -m trainer calibrate"): HOURS,
    ("stopping.md", "python -m trainer stops runs/mine/calibrated"): HOURS,
    ("storage.md", "data/"): NO_COMMAND,
    ("storage.md", "manifest.json"): NO_COMMAND,
    ("training.md", "make train DATA=folder"): HOURS,
    ("training.md", "torchrun --nproc-per-node 4"): HOURS,
    ("ways-in.md", "LLM_BASE_URL=http://127.0.0.1:11434/v1 LLM_MODEL=llama3.2 make serve"): FOREGROUND,
}
"""Page and beginning of each block that is not run here, and why."""


def commands(page: Path) -> list[Block]:
    """The blocks that command something."""
    return [block for block in code_blocks(page) if block.language not in DATA]


def reason(block: Block) -> str | None:
    """Why a block is not run here, if it is not."""
    found = [why for (page, start), why in NOT_RUN_HERE.items() if _is(block, page, start)]
    return found[0] if found else None


def _is(block: Block, page: str, start: str) -> bool:
    return block.page == page and f"{block.first_line} ".startswith(f"{start} ")


def stale_entries() -> list[tuple[str, str]]:
    """Entries of the list that no block, or more than one, answers to."""
    every = [block for page in PAGES for block in commands(page)]
    return [entry for entry in NOT_RUN_HERE if sum(_is(block, *entry) for block in every) != 1]
