"""Ask a question and watch the answer being written: each selected passage, then the text, then what it rests on.

    python examples/clients/answer.py "Where was the lantern before the garden?"

The service has to know a language model (LLM_BASE_URL, LLM_MODEL): see docs/ways-in.md.
"""

import json
import os
import sys

import httpx

URL = os.environ.get("QRAG_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("QRAG_API_KEY", "")


def main() -> None:
    """Print the events of one streamed answer."""
    headers = {"Accept": "text/event-stream"} | ({"Authorization": f"Bearer {KEY}"} if KEY else {})
    body = {"question": " ".join(sys.argv[1:])}
    with httpx.stream("POST", f"{URL}/answer", json=body, headers=headers, timeout=300) as response:
        if response.is_error:
            response.read()
            sys.exit(response.json()["detail"])
        event = ""
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                event = value
            elif field == "data":
                show(event, json.loads(value))


def show(event: str, data: dict) -> None:
    """One event, for people."""
    if event == "step":
        print(f"step {data['step']}: {data['chunk']['text']}")
    elif event == "retrieval":
        print()
    elif event == "token":
        print(data["text"], end="", flush=True)
    elif event == "result":
        print("\n")
        for passage in data["citations"]:
            where = f"{passage['document_id']} {passage['start']}-{passage['end']}"
            print(f"{passage['marker']} {where}: {passage['text']}")
        if data["evidence_likely_missing"]:
            print("Some of the evidence is likely missing.")
    else:
        sys.exit(data["detail"])


if __name__ == "__main__":
    main()
