"""RUN --mount, through the docker and the lamina command line."""

from __future__ import annotations

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
    ],
)
def test_a_malformed_mount_is_refused_by_name(daemon: Daemon, context: Path, mount: str, message: str) -> None:
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN --mount={mount} true\n")
    assert message in daemon.lamina("build", context).err
