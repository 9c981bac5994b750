"""Thousands of requests that are made from the OpenAPI document: none of them is answered otherwise than it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from tests.service.helpers import JSON

SCHEMATHESIS = """
seed = 20260101
workers = 1

[generation]
max-examples = 20
no-shrink = true

# A document that was created is gone, and rightly, where its collection was deleted before it was looked for: the check
# does not know that. tests/service/test_documents.py looks for what was created.
[checks]
ensure_resource_availability.enabled = false

# Whether an upload is acceptable is more than a schema can say: a PDF has to be one, a text has to be in its
# charset, `metadata` and `chunking` are JSON inside a string, and fields in the query go with raw bodies only.
[[operations]]
include-name = "POST /documents"
checks.positive_data_acceptance.enabled = false

# Nor that a chunk is among those that are searched, and a continuation one that was handed out.
[[operations]]
include-name = "POST /retrieve"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-name = "POST /answer"
checks.positive_data_acceptance.enabled = false

# Nor that expected evidence stands in the documents.
[[operations]]
include-name = "POST /admin/checkpoints"
checks.positive_data_acceptance.enabled = false

# Nor that each chunk is judged once.
[[operations]]
include-name = "POST /feedback"
checks.positive_data_acceptance.enabled = false
"""


def test_service_keeps_its_contract_under_generated_requests(shared_client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", "--no-color"]
    run = subprocess.run(
        [*command, str(shared_client.base_url.join("/openapi.json"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "Tested: 30" in run.stdout
    assert shared_client.get("/readyz").status_code == 200
    assert shared_client.post("/retrieve", content=b"{", headers=JSON).status_code == 400
