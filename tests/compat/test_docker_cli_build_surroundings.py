"""What surrounds the commands of a build: limits, rights, and the platform that they are for."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import LAMINA, Daemon
from lamina.linux import binfmt
from lamina.linux.cgroups import Hierarchies
from lamina.linux.mount import FilesystemContext
from lamina.oci.platform import Platform

ALL_CAPABILITIES = 0x1FF_FFFF_FFFF
FOREIGN = "arm64" if Platform.of_host().architecture != "arm64" else "s390x"


def build(daemon: Daemon, context: Path, dockerfile: str, *options: str | Path, cli: str = "lamina") -> str:
    (context / "Dockerfile").write_text(dockerfile)
    return (daemon.docker_ok if cli == "docker" else daemon.lamina_ok)("build", "--no-cache", *options, context)


def failure(daemon: Daemon, context: Path, dockerfile: str, *options: str, cli: str = "lamina") -> str:
    (context / "Dockerfile").write_text(dockerfile)
    result = (daemon.docker if cli == "docker" else daemon.lamina)("build", *options, context)
    assert result.code != 0, result.out
    return result.err


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_ulimits_bound_the_commands(daemon: Daemon, context: Path, cli: str) -> None:
    dockerfile = "FROM busybox\nRUN echo soft=$(ulimit -Sn) hard=$(ulimit -Hn)\n"
    assert "soft=128 hard=256" in build(daemon, context, dockerfile, "--ulimit", "nofile=128:256", cli=cli)


def test_a_limit_above_what_the_host_gives_is_lowered_and_told(daemon: Daemon, context: Path) -> None:
    out = build(daemon, context, "FROM busybox\nRUN ulimit -Hn\n", "--ulimit", "nofile=1073741000:1073741000")
    assert "ulimit nofile is lowered to" in out or "1073741000" in out


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_memory_and_cpus_are_limited_by_the_control_group(daemon: Daemon, context: Path, cli: str) -> None:
    """The limits are asked of the kernel while the step runs: through the file that either version of control groups has."""
    script = (
        "for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do"
        " [ -e $f ] && echo memory=$(cat $f); done;"
        " for f in /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max; do [ -e $f ] && echo cpu=$(cat $f); done; true"
    )
    options = ("--memory", "64m", "--memory-swap", "128m", "--cpu-period", "50000", "--cpu-quota", "25000")
    out = build(daemon, context, f"FROM busybox\nRUN {script}\n", *options, cli=cli)
    assert "memory=67108864" in out
    assert "cpu=25000" in out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--memory=1m", "Minimum memory limit allowed is 6MB"),
        ("--cpu-period=10", "CPU cfs period can not be less than 1ms"),
        ("--cpuset-cpus=9999", "Requested CPUs are not available"),
        ("--security-opt=nonsense=x", 'invalid --security-opt 2: "nonsense=x"'),
    ],
)
@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_limits_that_cannot_be_are_refused(daemon: Daemon, context: Path, option: str, message: str, cli: str) -> None:
    assert message in failure(daemon, context, "FROM busybox\nRUN true\n", option, cli=cli)


def test_a_control_group_s_parent_is_the_one_asked_for(daemon: Daemon, context: Path) -> None:
    parent = f"{daemon.cgroup}/builds"
    out = build(
        daemon, context, "FROM busybox\nRUN cat /proc/self/cgroup\n", "--cgroup-parent", parent, "--network=host"
    )
    assert "/" in out
    config = "FROM busybox\nRUN sleep 1\n"
    (context / "Dockerfile").write_text(config)
    argv = ["build", "--no-cache", "--cgroup-parent", parent, context]
    env = {"LAMINA_HOST": daemon.host, "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen([str(LAMINA), *map(str, argv)], env=env, stdout=subprocess.DEVNULL)
    try:
        seen = False
        while process.poll() is None and not seen:
            seen = any(any(d.iterdir()) for d in Hierarchies.of_host().directories(parent) if d.exists())
    finally:
        assert process.wait(30) == 0
    assert seen
    for directory in Hierarchies.of_host().directories(parent):
        if directory.exists():
            directory.rmdir()


def test_an_insecure_step_needs_the_build_s_word(daemon: Daemon, context: Path) -> None:
    dockerfile = "FROM busybox\nRUN --security=insecure grep CapEff /proc/self/status\n"
    assert "security.insecure is not allowed" in failure(daemon, context, dockerfile)
    assert "security.insecure is not allowed" in failure(daemon, context, dockerfile, cli="docker")
    out = build(daemon, context, dockerfile, "--allow", "security.insecure")
    effective = next(int(line.split()[1], 16) for line in out.splitlines() if line.startswith("CapEff:"))
    assert effective.bit_count() > 20  # docker's default set has 14
    assert "invalid entitlement: nonsense" in failure(daemon, context, dockerfile, "--allow", "nonsense")


def test_an_insecure_step_s_outcome_is_not_a_sandboxed_one_s(daemon: Daemon, context: Path) -> None:
    dockerfile = "FROM busybox\nRUN {} grep CapEff /proc/self/status > /caps\n"
    (context / "Dockerfile").write_text(dockerfile.format("--security=insecure"))
    daemon.lamina_ok("build", "--allow", "security.insecure", context)
    (context / "Dockerfile").write_text(dockerfile.format("--security=sandbox"))
    assert "Using cache" not in daemon.lamina_ok("build", context)


def test_a_stage_from_scratch_is_of_the_platform_asked_for(daemon: Daemon, context: Path) -> None:
    dockerfile = (
        "FROM --platform=$BUILDPLATFORM busybox AS made\nARG TARGETPLATFORM TARGETARCH BUILDARCH\n"
        "RUN echo $TARGETPLATFORM $TARGETARCH $BUILDARCH > /said\n"
        "FROM scratch\nCOPY --from=made /said /said\n"
    )
    for cli in ("docker", "lamina"):
        build(daemon, context, dockerfile, f"--platform=linux/{FOREIGN}", "-t", f"foreign-{cli}", cli=cli)
        found = json.loads(daemon.docker_ok("inspect", f"foreign-{cli}"))[0]
        assert (found["Os"], found["Architecture"]) == ("linux", FOREIGN)
    build(daemon, context, dockerfile, f"--platform=linux/{FOREIGN}", "-o", context / "out")
    said = (context / "out" / "said").read_text().split()
    assert said == [f"linux/{FOREIGN}", FOREIGN, Platform.of_host().architecture]


def test_a_base_of_another_platform_is_refused_by_name(daemon: Daemon, context: Path) -> None:
    message = f"was found but does not match the specified platform: wanted linux/{FOREIGN}"
    for cli in ("docker", "lamina"):
        assert message in failure(daemon, context, "FROM busybox\n", f"--platform=linux/{FOREIGN}", cli=cli)
    assert message in failure(daemon, context, f"FROM --platform=linux/{FOREIGN} busybox\n")
    assert "one platform at a time" in failure(daemon, context, "FROM busybox\n", "--platform=linux/amd64,linux/arm64")


def test_a_command_for_a_platform_that_nothing_here_runs_is_refused_by_name(daemon: Daemon, context: Path) -> None:
    if binfmt.can_run(FOREIGN, host=Platform.of_host().architecture):
        pytest.skip(f"this host runs programs for {FOREIGN}")
    dockerfile = 'FROM scratch\nCOPY Dockerfile /\nRUN ["/nothing"]\n'
    err = failure(daemon, context, dockerfile, f"--platform=linux/{FOREIGN}")
    assert f"no binfmt_misc handler for {FOREIGN}" in err


def test_options_hold_for_a_dockerfile_on_standard_input(daemon: Daemon, context: Path) -> None:
    secret = context / "secret"
    secret.write_text("hidden")
    dockerfile = b'FROM busybox\nRUN --mount=type=secret,id=s test "$(cat /run/secrets/s)" = hidden\n'
    daemon.lamina_ok("build", "--no-cache", "--secret", f"id=s,src={secret}", "-", data=dockerfile)


def test_options_hold_for_a_tar_on_standard_input(daemon: Daemon, context: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in (
            ("Dockerfile", b"FROM busybox\nCOPY f /f\nRUN --security=insecure cat /f\n"),
            ("f", b"file"),
        ):
            header = tarfile.TarInfo(name)
            header.size = len(text)
            archive.addfile(header, io.BytesIO(text))
    out = daemon.lamina_ok("build", "--no-cache", "--allow=security.insecure", "-", data=buffer.getvalue())
    assert "file" in out


def test_a_dockerfile_from_elsewhere_brings_what_is_to_be_ignored(
    daemon: Daemon, context: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "My.Dockerfile").write_text("FROM busybox\nCOPY . /all\nRUN ls /all\n")
    (elsewhere / "My.Dockerfile.dockerignore").write_text("left-out\n")
    (context / ".dockerignore").write_text("kept\n")
    for name in ("left-out", "kept"):
        (context / name).write_text("")
    out = daemon.lamina_ok("build", "--no-cache", "-f", elsewhere / "My.Dockerfile", context)
    assert "kept" in out
    assert "left-out" not in out


def test_the_time_can_be_given(daemon: Daemon, context: Path) -> None:
    (context / "f").write_text("")
    build(daemon, context, "FROM busybox\nCOPY f /f\nRUN touch /g\n", "--timestamp", "1000000000", "-t", "timed")
    assert daemon.docker_ok("inspect", "-f", "{{.Created}}", "timed").startswith("2001-09-09T01:46:40")
    assert daemon.docker_ok("run", "--rm", "timed", "stat", "-c", "%Y", "/f", "/g").split() == ["1000000000"] * 2


def write_file(directory: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


@pytest.fixture
def emulator() -> Iterator[bytes]:
    """See ``handler``."""
    with handler() as program:
        yield program


@contextmanager
def handler() -> Iterator[bytes]:
    """A handler for a foreign architecture's programs; yields such a program.

    The kernel gives the interpreter, which is busybox, the program's path as its first argument, by whose last part busybox knows what
    to do. So a foreign "program" called sh is a shell.
    """
    if binfmt.can_run(FOREIGN, host=Platform.of_host().architecture):
        pytest.skip(f"this host has a handler for {FOREIGN} already")
    header = binfmt.elf_header(FOREIGN)
    busybox = shutil.which("busybox")
    assert header is not None
    assert busybox is not None
    name = f"lamina_test_{os.getpid()}"
    escaped = "".join(f"\\x{byte:02x}" for byte in header[:20])
    try:
        with FilesystemContext("binfmt_misc") as filesystem:
            directory = filesystem.mount()  # handlers are gone with the last mount, wherever that is
        write_file(directory, "register", f":{name}:M:0:{escaped}::{busybox}:F".encode())
    except OSError as error:
        pytest.skip(f"this kernel takes no handlers: {error}")
    try:
        yield header + bytes(64)
    finally:
        write_file(directory, name, b"-1")
        os.close(directory)


def test_commands_for_another_platform_that_were_run_before_need_no_handler(daemon: Daemon, context: Path) -> None:
    host = Platform.of_host().architecture
    if binfmt.can_run(FOREIGN, host=host):
        pytest.skip(f"this host has a handler for {FOREIGN} always")
    dockerfile = "FROM scratch\nCOPY sh /bin/sh\nRUN echo cached > /said\n"
    program = context / "sh"
    with handler() as emulated:
        program.write_bytes(emulated)
        program.chmod(0o755)
        build(daemon, context, dockerfile, f"--platform=linux/{FOREIGN}")
    assert not binfmt.can_run(FOREIGN, host=host)
    out = daemon.lamina_ok("build", f"--platform=linux/{FOREIGN}", context)
    assert out.count("Using cache") == 2


def test_commands_for_another_platform_run_where_the_kernel_has_a_handler(
    daemon: Daemon, context: Path, emulator: bytes
) -> None:
    program = context / "sh"
    program.write_bytes(emulator)
    program.chmod(0o755)
    dockerfile = "FROM scratch\nCOPY sh /bin/sh\nRUN echo built > /said\n"
    build(daemon, context, dockerfile, f"--platform=linux/{FOREIGN}", "-t", "emulated")
    assert daemon.docker_ok("inspect", "-f", "{{.Architecture}}", "emulated") == FOREIGN
    build(daemon, context, dockerfile, f"--platform=linux/{FOREIGN}", "-o", context / "out")
    assert (context / "out" / "said").read_text() == "built\n"
