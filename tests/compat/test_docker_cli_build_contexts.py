"""``build --build-context``: further contexts, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Daemon


@pytest.fixture
def other(tmp_path: Path) -> Path:
    directory = tmp_path / "other"
    directory.mkdir()
    (directory / "f").write_text("other")
    (directory / "secret").write_text("x")
    (directory / ".dockerignore").write_text("secret\n")
    return directory


def build(daemon: Daemon, context: Path, dockerfile: str, *options: str) -> str:
    (context / "Dockerfile").write_text(dockerfile)
    return daemon.lamina_ok("build", "-t", "named", *options, context)


def test_a_directory_is_copied_from_and_mounted(daemon: Daemon, context: Path, other: Path) -> None:
    dockerfile = (
        "FROM busybox\nCOPY --from=Shared . /shared/\n"
        "RUN --mount=from=shared,target=/m cp /m/f /from-mount && [ ! -e /m/secret ]\n"
    )
    build(daemon, context, dockerfile, "--build-context", f"shared={other}")
    out = daemon.docker_ok("run", "--rm", "named", "sh", "-c", "cat /from-mount; ls -A /shared")
    assert out.split() == ["other.dockerignore", "f"]
    assert build(daemon, context, dockerfile, "--build-context", f"shared={other}").count("Using cache") == 2
    (other / "f").write_text("new")
    assert build(daemon, context, dockerfile, "--build-context", f"shared={other}").count("Using cache") == 0


def test_a_context_takes_the_place_of_a_stage_and_of_an_image(daemon: Daemon, context: Path, other: Path) -> None:
    dockerfile = "FROM nowhere AS made\nRUN false\nFROM base\nCOPY --from=made f /f\n"
    contexts = ("--build-context", f"made={other}", "--build-context", "base=image://busybox")
    out = build(daemon, context, dockerfile, *contexts)
    assert "RUN false" not in out, "no target needs the stage"
    assert daemon.docker_ok("run", "--rm", "named", "cat", "/f") == "other"


def test_an_image_is_copied_from_under_another_name(daemon: Daemon, context: Path) -> None:
    build(
        daemon,
        context,
        "FROM scratch\nCOPY --from=tools /etc/passwd /p\n",
        "--build-context",
        "tools=docker-image://busybox",
    )
    assert "COPY --from=tools" in daemon.docker_ok("history", "--no-trunc", "named")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("x", "expected key=value"),
        ("x=/does/not/exist", "not found"),
        ("x=image://no-such-image", "No such image"),
        ("x=ftp://h/f", "invalid source"),
        ("x=oci-layout:///d:latest", "build context x: oci-layout:// is not supported by lamina"),
        ("x=target:base", "build context x: target: is not supported by lamina"),
    ],
)
def test_a_context_that_is_not_there_is_told(daemon: Daemon, context: Path, given: str, reason: str) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nCOPY --from=x /f /f\n")
    result = daemon.lamina("build", "--build-context", given, context)
    assert result.code == 1
    assert reason in result.err


def test_a_directory_cannot_be_a_base(daemon: Daemon, context: Path, other: Path) -> None:
    (context / "Dockerfile").write_text("FROM x\nRUN true\n")
    result = daemon.lamina("build", "--build-context", f"x={other}", context)
    assert "is no image" in result.err


@pytest.mark.parametrize("cli", ["docker", "lamina"])
@pytest.mark.parametrize("name", ["Dockerfile", "sub/My.Dockerfile"])
@pytest.mark.parametrize("other", ["", "kept\n"])
def test_what_stands_beside_the_dockerfile_is_ignored(
    daemon: Daemon, context: Path, cli: str, name: str, other: str
) -> None:
    (context / "sub").mkdir()
    (context / name).write_text("FROM busybox\nCOPY . /c/\n")
    (context / f"{name}.dockerignore").write_text("left-out\n")
    (context / ".dockerignore").write_text(other)
    for file in ("left-out", "kept"):
        (context / file).write_text("")
    (daemon.docker_ok if cli == "docker" else daemon.lamina_ok)("build", "-t", "named", "-f", context / name, context)
    shown = daemon.docker_ok("run", "--rm", "named", "ls", "/c").split()
    assert "left-out" not in shown
    # docker's own client does not know of the file beside the Dockerfile, and applies the other one first
    assert ("kept" in shown) == (cli == "lamina" or not other)
