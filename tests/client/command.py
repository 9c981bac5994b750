"""``qrag`` as a process of its own, and on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
COMMAND = """
import signal, sys
from importlib.metadata import EntryPoint
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored
sys.exit(EntryPoint("qrag", {value!r}, "console_scripts").load()())
"""


def command(*arguments: str) -> list[str]:
    """The command as it is installed, in a process of its own."""
    script = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]["scripts"]["qrag"]
    return [sys.executable, "-c", COMMAND.format(value=script), *arguments]


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=60
    )


def started(*arguments: str) -> subprocess.Popen[str]:
    """Let it run."""
    return subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def on_a_terminal(*arguments: str, **settings: str) -> str:
    """What it shows on one."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with subprocess.Popen(
        command(*arguments), cwd=ROOT, env=os.environ | settings, stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # EIO: the other side is closed
            pass
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def rows(table: str) -> list[list[str]]:
    """The cells of a table, its names first."""
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines()]
