"""RUN --mount, through the docker and the lamina command line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from conftest import Daemon


def build(daemon: Daemon, context: Path, dockerfile: str, *options: str | Path) -> str:
    (context / "Dockerfile").write_text(dockerfile)
    return daemon.lamina_ok("build", "-t", "mounted", *options, context)


def run(daemon: Daemon, *command: str) -> str:
    return daemon.docker_ok("run", "--rm", "mounted", *command)


@pytest.mark.parametrize("cli", ["docker", "lamina"])
def test_a_bind_mount_shows_the_context_and_leaves_nothing_in_the_image(
    daemon: Daemon, context: Path, cli: str
) -> None:
    (context / "d").mkdir()
    (context / "d" / "f").write_text("text")
    (context / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN --mount=target=/src cat /src/d/f > /a; touch /src/no || true\n"
        "RUN --mount=type=bind,source=d/f,target=/deep/er/file cat /deep/er/file > /b\n"
        "RUN --mount=type=bind,source=d,target=/rw,rw echo x > /rw/g && cat /rw/g > /c\n"
    )
    (daemon.docker_ok if cli == "docker" else daemon.lamina_ok)("build", "-t", "mounted", context)
    assert run(daemon, "cat", "/a", "/b", "/c") == "texttextx"
    assert run(daemon, "sh", "-c", "ls -d /src /deep /rw 2>&1 || true").count("No such file") == 3
    assert not (context / "d" / "g").exists()


def test_a_step_runs_again_when_what_it_mounts_has_changed(daemon: Daemon, context: Path) -> None:
    (context / "f").write_text("1")
    dockerfile = "FROM busybox\nRUN --mount=type=bind,source=f,target=/f cat /f > /copy\n"
    build(daemon, context, dockerfile)
    (context / "other").write_text("x")
    assert "Using cache" in build(daemon, context, dockerfile)
    (context / "f").write_text("2")
    assert "Using cache" not in build(daemon, context, dockerfile)
    assert run(daemon, "cat", "/copy") == "2"


def test_a_bind_mount_of_a_stage_shows_its_files(daemon: Daemon, context: Path) -> None:
    out = build(
        daemon,
        context,
        "FROM busybox AS one\nRUN mkdir /o && echo built > /o/x\n"
        "FROM busybox\nRUN --mount=type=bind,from=one,source=/o,target=/in cp /in/x /y && ! touch /in/z\n"
        "RUN --mount=type=bind,from=busybox,source=/bin/busybox,target=/x/busybox /x/busybox echo hi > /hi\n",
    )
    assert "Successfully built" in out
    assert run(daemon, "cat", "/y", "/hi") == "built\nhi"


def test_a_cache_lasts_from_build_to_build_and_is_no_part_of_the_image(daemon: Daemon, context: Path) -> None:
    mount = "--mount=type=cache,target=/var/cache/it,id=lasting"
    dockerfile = f"FROM busybox\nARG N\nRUN {mount} echo $N >> /var/cache/it/log; cp /var/cache/it/log /log\n"
    build(daemon, context, dockerfile, "--build-arg", "N=1")
    build(daemon, context, dockerfile, "--build-arg", "N=2")
    assert run(daemon, "cat", "/log") == "1\n2"
    assert "No such file" in run(daemon, "sh", "-c", "ls -d /var/cache/it 2>&1 || true")


def test_a_locked_cache_has_one_user_at_a_time(daemon: Daemon, context: Path) -> None:
    step = "RUN --mount=type=cache,target=/c,id=alone,sharing=locked test ! -e /c/busy && touch /c/busy && sleep 1 && rm /c/busy"
    build(
        daemon,
        context,
        f"FROM busybox AS a\n{step} # a\nFROM busybox AS b\n{step} # b\nFROM a\nCOPY --from=b /bin/sh /x\n",
    )


def test_the_values_of_mounts_may_be_variables(daemon: Daemon, context: Path) -> None:
    (context / "d").mkdir()
    (context / "d" / "f").write_text("text")
    build(
        daemon,
        context,
        "FROM busybox\nENV C=/cc\nARG D=d\nRUN --mount=target=$C/x,source=${D} cat /cc/x/f > /a\n",
    )
    assert run(daemon, "cat", "/a") == "text"


def test_a_cache_is_usable_by_whom_it_is_asked_for(daemon: Daemon, context: Path) -> None:
    cache = "--mount=type=cache,id=whose,target=/c"
    build(
        daemon,
        context,
        f"FROM busybox\nRUN {cache} touch /c/root\nUSER bob\n"
        f"RUN {cache},uid=1000,gid=1000,mode=0700 touch /c/bob && stat -c '%u %g %a' /c > /tmp/owner; ls /c >> /tmp/owner\n"
        f"RUN {cache},uid=1000,gid=1000,mode=0700 ls /c > /tmp/again\n",
    )
    assert run(daemon, "cat", "/tmp/owner", "/tmp/again").split() == ["1000", "1000", "700", "bob", "bob"]


def test_a_slash_at_the_end_makes_no_other_cache(daemon: Daemon, context: Path) -> None:
    step = "RUN --mount=type=cache,target=/slash"
    build(daemon, context, f"FROM busybox\n{step}/ echo x > /slash/f\n{step} cp /slash/f /f\n")
    assert run(daemon, "cat", "/f") == "x"


def test_an_agents_socket_has_the_owner_and_mode_that_are_asked_for(
    daemon: Daemon, context: Path, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        (tmp_path / "agent").chmod(0o600)
        look = "stat -c '%F %u %g %a' $SSH_AUTH_SOCK"
        build(
            daemon,
            context,
            f"FROM busybox\nRUN --mount=type=ssh {look} > /s\nUSER bob\n"
            f"RUN --mount=type=ssh,uid=1000,gid=1000,mode=0640 {look} > /tmp/s && test -w $SSH_AUTH_SOCK\n",
            "--ssh",
            f"default={tmp_path / 'agent'}",
        )
    assert run(daemon, "cat", "/s", "/tmp/s").splitlines() == ["socket 0 0 600", "socket 1000 1000 640"]
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=ssh true\n")
    assert "there is no socket at /none" in daemon.lamina("build", "--no-cache", "--ssh", "default=/none", context).err


def test_a_mount_of_a_stage_depends_on_what_it_shows_alone(daemon: Daemon, context: Path) -> None:
    dockerfile = (
        "FROM busybox AS src\nARG B\nRUN mkdir /a && echo same > /a/f && echo $B > /b\n"
        "FROM busybox\nRUN --mount=from=src,source=/a,target=/m cp /m/f /copy\n"
        "RUN --mount=from=src,source=/b,target=/m cp /m /copied\n"
    )
    build(daemon, context, dockerfile, "--build-arg", "B=1")
    out = build(daemon, context, dockerfile, "--build-arg", "B=2")
    shown = out[out.index("source=/a") : out.index("source=/b")]
    assert "Using cache" in shown
    assert run(daemon, "cat", "/copied") == "2"


@pytest.mark.parametrize("stage", ["", "from=src,"])
def test_a_source_is_no_pattern(daemon: Daemon, context: Path, stage: str) -> None:
    (context / "[a]*").write_text("literal")
    (context / "a1").write_text("other")
    dockerfile = (
        "FROM busybox AS src\nCOPY . /\nFROM busybox\n"
        f"RUN --mount={stage}source=/[a]*,target=/m cp /m /f\nRUN --mount={stage}source=/a*,target=/m true\n"
    )
    (context / "Dockerfile").write_text(dockerfile)
    err = daemon.lamina("build", context).err
    assert "RUN --mount failed: file not found in " in err
    assert "stat /a*: file does not exist" in err
    build(daemon, context, dockerfile.rpartition("RUN")[0])
    assert run(daemon, "cat", "/f") == "literal"


def test_a_secret_is_seen_by_its_step_alone(daemon: Daemon, context: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cr3t-value")
    dockerfile = (
        "FROM busybox\n"
        "RUN --mount=type=secret,id=token stat -c %a /run/secrets/token > /mode && sha256sum < /run/secrets/token > /sum\n"
        'RUN --mount=type=secret,id=token,env=TOKEN,target=/t,mode=0444 test "$TOKEN" = "$(cat /t)"\n'
        "RUN ! ls /run/secrets/token\n"
    )
    out = build(daemon, context, dockerfile, "--secret", f"id=token,src={secret}")
    assert run(daemon, "cat", "/mode") == "400"
    secret.write_text("another-value")
    assert build(daemon, context, dockerfile, "--secret", f"id=token,src={secret}").count("Using cache") == 3
    assert "s3cr3t" not in out + daemon.docker_ok("history", "--no-trunc", "mounted") + daemon.log
    saved = tmp_path / "saved.tar"
    daemon.docker_ok("save", "-o", saved, "mounted")
    assert b"s3cr3t-value" not in saved.read_bytes()
    for path in daemon.root.rglob("*"):
        if path.is_file() and path.stat().st_size < 64 << 20:
            assert b"s3cr3t-value" not in path.read_bytes(), path


def test_a_secret_that_is_missing_fails_the_step_that_requires_it(daemon: Daemon, context: Path) -> None:
    build(daemon, context, "FROM busybox\nRUN --mount=type=secret,id=none ! test -e /run/secrets/none\n")
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=secret,id=none,required true\n")
    assert "secret none: not found" in daemon.lamina("build", context).err


def test_a_tmpfs_may_be_read_only(daemon: Daemon, context: Path) -> None:
    build(daemon, context, "FROM busybox\nRUN --mount=type=tmpfs,target=/t,ro ! touch /t/x\n")


def test_a_tmpfs_is_empty_and_bounded(daemon: Daemon, context: Path) -> None:
    build(
        daemon, context, "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=1m ! head -c 2000000 /dev/zero > /t/x\n"
    )


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ("type=wrong,target=/x", 'unsupported mount type "wrong"'),
        ("type=cache", "target is required"),
        ("type=cache,target=/x,sharing=odd", 'unsupported sharing value "odd"'),
        ("type=bind,target=/x,size=1", "unexpected key 'size'"),
        ("type=bind,target=/x,source=nothing", "nothing"),
        ("type=tmpfs,target=/", 'invalid mount target "/"'),
        ("target=/x/..", 'invalid mount target "/"'),
        ("target=$X,uid=$X", "uid not allowed"),
        ("type=secret,id=none,required", "secret none: not found"),
        ("type=ssh,required", "ssh agent default: not given to the build"),
    ],
)
def test_a_malformed_mount_is_refused_by_name_and_line(daemon: Daemon, context: Path, mount: str, message: str) -> None:
    (context / "Dockerfile").write_text(f"FROM busybox\nENV X=/x\nRUN --mount={mount} true\n")
    err = daemon.lamina("build", context).err
    assert message in err
    assert (
        f"Dockerfile:3\n--------------------\n   1 |     FROM busybox\n   2 |     ENV X=/x\n   3 | >>> RUN --mount={mount} true"
        in err
    )
