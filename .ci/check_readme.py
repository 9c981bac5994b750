"""Follow the README in a fresh clone: its commands must work as they stand, and the answers must be the one shown.

``make serve`` runs from the clone in an environment of its own; only the port is another one, so that a
service already running here is neither disturbed nor mistaken for it. The three ways to use it follow one after the
other: HTTP, the shell, Python.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parent.parent
INSTALL_SECONDS = 1500


def blocks(readme: str, language: str) -> list[str]:
    """The fenced code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    readme = (ROOT / "README.md").read_text()
    serve, talk, two_facts, index = blocks(readme, "sh")
    assert serve.strip() == "make serve", serve
    (program,) = blocks(readme, "python")
    (shown,) = blocks(readme, "text")
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        clone = Path(directory) / "qrag"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("QRAG_", "VIRTUAL_"))}
        server = subprocess.Popen(
            ["bash", "-c", serve],
            cwd=clone,
            env=environment | {"QRAG_PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        watchdog = threading.Timer(INSTALL_SECONDS, lambda: os.killpg(server.pid, signal.SIGKILL))
        watchdog.start()
        try:
            assert server.stdout is not None
            for line in server.stdout:
                print("serve |", line, end="")
                if "Uvicorn running on" in line:
                    break
            else:
                sys.exit("make serve ended without serving")
            threading.Thread(target=server.stdout.read, daemon=True).start()
            url = f"http://127.0.0.1:{port}"
            installed = clone / ".venv" / "bin"
            environment |= {"QRAG_URL": url, "PATH": f"{installed}:{environment['PATH']}"}

            def output(*command: str) -> str:
                done = subprocess.run(
                    command, cwd=clone, env=environment, check=True, stdout=subprocess.PIPE, text=True
                )
                return done.stdout

            requests = talk.replace("http://127.0.0.1:8000", url).replace("curl ", "curl --silent --fail ")
            answer = output("bash", "-ec", requests)
            asked = output("bash", "-ec", two_facts)
            output("bash", "-ec", index)
            printed = output("python", "-c", program.replace("http://127.0.0.1:8000", url))
        finally:
            watchdog.cancel()
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)
    decoder = json.JSONDecoder()
    document, end = decoder.raw_decode(answer)
    result, _ = decoder.raw_decode(answer[end:].lstrip())
    assert document["status"] == "ready", document
    assert result["context"].strip() == shown.strip(), (
        f"the README shows\n{shown}\nthe service said\n{result['context']}"
    )
    assert "a pension of three hundred a year" in " ".join(asked.split()), asked
    assert printed.strip() == shown.strip(), printed
    print("README: the commands work and the answers are the one shown.")


if __name__ == "__main__":
    main()
