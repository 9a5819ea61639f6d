"""What ``lamina build`` shows: on a terminal the steps as they run, elsewhere lines; how it fails, and how it is ended."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from conftest import Daemon
from terminals import terminal

EXCERPT = (
    "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN echo hello; \\\n"
    "   3 | >>>     exit 7\n   4 |     CMD nothing\n--------------------\n"
    "The command '/bin/sh -c echo hello;     exit 7' returned a non-zero code: 7\n"
)


def write(context: Path, dockerfile: str) -> Path:
    (context / "Dockerfile").write_text(dockerfile)
    return context


def test_a_terminal_shows_steps_as_they_run_and_end(daemon: Daemon, context: Path) -> None:
    write(context, "FROM busybox AS one\nRUN echo working; sleep 1; echo $(date +%s%N) > /x\nFROM one\nENV A=1\n")
    with terminal(daemon, "build", "-t", "viewed", str(context)) as shown:
        shown.expect(b"DONE")
        shown.expect(b"FROM busybox AS one")
        shown.expect(b"RUNS")
        shown.expect(b"working")
        shown.expect(b"built sha256:")
        shown.expect(b"named viewed:latest")
        assert shown.end() == 0
    with terminal(daemon, "build", "-t", "viewed", str(context)) as shown:
        shown.expect(b"CACHED")
        shown.expect(b"RUN echo working")
        assert shown.end() == 0


def test_a_terminal_shows_what_failed_with_its_lines_and_last_words(daemon: Daemon, context: Path) -> None:
    write(context, "FROM busybox\nRUN echo hello; \\\n    exit 7\nCMD nothing\n")
    with terminal(daemon, "build", str(context)) as shown:
        shown.expect(b"FAILED")
        shown.expect(b"hello")
        shown.expect(b"2 | >>> RUN echo hello;")
        shown.expect(b"returned a non-zero code: 7")
        assert shown.end() == 7


@pytest.mark.parametrize("options", [[], ["--progress=plain"]])
def test_elsewhere_a_failing_step_is_told_in_lines(daemon: Daemon, context: Path, options: list[str]) -> None:
    write(context, "FROM busybox\nRUN echo hello; \\\n    exit 7\nCMD nothing\n")
    result = daemon.lamina("build", *options, context)
    assert result.code == 7
    assert "hello\n" in result.out
    assert result.err.endswith(EXCERPT)


def test_docker_s_own_command_reads_what_docker_says(daemon: Daemon, context: Path) -> None:
    result = daemon.docker("build", write(context, "FROM busybox\nRUN exit 7\n"))
    assert result.code == 7
    assert result.err.splitlines()[-1] == "The command '/bin/sh -c exit 7' returned a non-zero code: 7"


def test_ctrl_c_ends_the_build_with_its_processes(daemon: Daemon, context: Path) -> None:
    marker = "4711.25"
    write(context, f"FROM busybox\nRUN echo began; sleep {marker}\n")
    with terminal(daemon, "build", "--no-cache", str(context)) as shown:
        shown.expect(b"began")
        shown.type(b"\x03")
        assert shown.end() == 130
    deadline = time.monotonic() + 10
    while marker in processes():
        assert time.monotonic() < deadline, "the step's process goes on"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_build(daemon: Daemon, context: Path, number: signal.Signals) -> None:
    marker = f"4712.{number}"
    write(context, f"FROM busybox\nRUN echo began; sleep {marker}\n")
    with terminal(daemon, "build", "--no-cache", "--progress=plain", str(context)) as shown:
        shown.expect(b"began")
        shown.process.send_signal(number)
        assert shown.end() in (130, 128 + number, -number)
    deadline = time.monotonic() + 10
    while marker in processes():
        assert time.monotonic() < deadline, "the step's process goes on"
        time.sleep(0.05)


def processes() -> str:
    """The command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(line for line in found if line.startswith("sleep "))
