"""``build --explain``: what changed since the last build of the same Dockerfile and context."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Daemon

DOCKERFILE = "FROM busybox\nARG V=1\nCOPY a b /f/\nRUN echo $V\nENV A=1\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "a").write_text(str(tmp_path))
    (directory / "b").write_text("b")
    (directory / "Dockerfile").write_text(DOCKERFILE)
    return directory


def reasons(daemon: Daemon, context: Path, *options: str) -> dict[str, str]:
    """By step, why it was carried out; cached ones are left out."""
    out = daemon.lamina_ok("build", "--explain", *options, context)
    found, step = {}, ""
    for line in out.splitlines():
        if line.startswith("Step "):
            step = line.partition(" : ")[2].split()[0]
        elif line.startswith(" ---> ") and not line.startswith(" ---> Running") and " " in line[6:]:
            found[step] = line[6:]
    return {step: reason for step, reason in found.items() if reason != "Using cache"}


def test_the_first_build_has_nothing_to_compare_with_and_the_same_again_is_cached(
    daemon: Daemon, context: Path
) -> None:
    assert reasons(daemon, context)["COPY"] == "no earlier build had this step"
    assert reasons(daemon, context) == {}


def test_files_that_changed_are_named_and_what_stands_on_them(daemon: Daemon, context: Path) -> None:
    reasons(daemon, context)
    (context / "b").write_text("new")
    found = reasons(daemon, context)
    assert found["COPY"] == "files changed: f/b"
    assert found["RUN"] == "files below changed"


def test_arguments_and_instructions_that_changed_are_named(daemon: Daemon, context: Path) -> None:
    reasons(daemon, context)
    assert reasons(daemon, context, "--build-arg", "V=2") == {"RUN": "arguments changed: V"}
    (context / "Dockerfile").write_text(DOCKERFILE.replace("echo $V", "echo other"))
    assert reasons(daemon, context, "--build-arg", "V=2") == {"RUN": "instruction changed"}


def test_what_is_not_kept_any_more_and_what_was_not_asked_for_is_told(own_daemon: Daemon, context: Path) -> None:
    reasons(own_daemon, context)
    assert set(reasons(own_daemon, context, "--no-cache").values()) == {"the cache is not used"}
    own_daemon.lamina_ok("builder", "prune", "-af")
    assert reasons(own_daemon, context)["COPY"] == "its outcome is no longer kept"


def test_a_build_that_failed_is_one_to_compare_with_too(daemon: Daemon, context: Path) -> None:
    reasons(daemon, context)
    (context / "Dockerfile").write_text(DOCKERFILE.replace("echo $V", "false"))
    assert daemon.lamina("build", context).code == 1
    (context / "Dockerfile").write_text(DOCKERFILE.replace("ENV A=1", "ENV A=2"))
    assert reasons(daemon, context) == {"ENV": "instruction changed"}
