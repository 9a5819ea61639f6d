"""The solver: what runs, what runs at once, and what is found in the cache."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conftest import Daemon


def build(daemon: Daemon, context: Path, dockerfile: str, *options: str | Path) -> str:
    (context / "Dockerfile").write_text(dockerfile)
    return daemon.docker_ok("build", "-t", "solved", *options, context)


def test_independent_stages_run_at_once_and_are_told_in_order(daemon: Daemon, context: Path) -> None:
    # each waits for a sign of the other: one after another, neither could succeed
    dockerfile = (
        "FROM busybox AS one\nRUN echo first; nc -l -p 4711 -w 20 > /got; cat /got\n"
        "FROM busybox AS two\nRUN for n in $(seq 100); do echo hello | nc -w 1 127.0.0.1 4711 && break; sleep 0.1; done; echo second\n"
        "FROM busybox\nCOPY --from=one /got /one\nCOPY --from=two /bin/sh /two\n"
    )
    out = build(daemon, context, dockerfile, "--network", "host")
    assert out.index("first") < out.index("second")
    assert out.index("Step 2/7") < out.index("Step 3/7") < out.index("Step 4/7") < out.index("Step 5/7")


def test_a_stage_that_no_target_needs_is_not_run(daemon: Daemon, context: Path) -> None:
    out = build(daemon, context, "FROM busybox AS unused\nRUN false\nFROM busybox\nRUN echo ok\n")
    assert "Step 2/2 : RUN echo ok" in out


def test_a_step_that_two_stages_share_runs_once(daemon: Daemon, context: Path) -> None:
    step = "RUN sleep 1; head -c 16 /dev/urandom | sha256sum > /random\n"
    dockerfile = f"FROM busybox AS a\n{step}FROM busybox AS b\n{step}FROM busybox\nCOPY --from=a /random /a\nCOPY --from=b /random /b\n"
    out = build(daemon, context, dockerfile, "--no-cache")
    assert out.count("Running in") == 1
    assert daemon.docker_ok("run", "--rm", "solved", "cmp", "/a", "/b") == ""


def test_a_copy_costs_nothing_when_something_else_in_the_context_changes(daemon: Daemon, context: Path) -> None:
    (context / "taken").write_text("1")
    dockerfile = "FROM busybox\nCOPY taken /taken\nRUN cat /taken\n"
    build(daemon, context, dockerfile)
    (context / "other").write_text("new")
    (context / "taken").touch()
    assert build(daemon, context, dockerfile).count("Using cache") == 2
    (context / "taken").write_text("2")
    assert build(daemon, context, dockerfile).count("Using cache") == 0


def test_a_copy_is_found_in_the_cache_when_only_what_is_below_it_changed_elsewhere(
    daemon: Daemon, context: Path
) -> None:
    (context / "f").write_text("f")
    build(daemon, context, "FROM busybox\nRUN mkdir /a && echo 1 > /a/x\nCOPY f /new/f\n")
    out = build(daemon, context, "FROM busybox\nRUN mkdir /a && echo 2 > /a/x\nCOPY f /new/f\n")
    assert out.count("Using cache") == 1
    assert daemon.docker_ok("run", "--rm", "solved", "cat", "/a/x", "/new/f") == "2\nf"


def test_an_unchanged_build_is_cached_wholly_and_gives_the_same_image(daemon: Daemon, context: Path) -> None:
    (context / "f").write_text("f")
    dockerfile = 'FROM busybox AS base\nENV A=1\nRUN echo x > /x\nFROM base\nCOPY f /f\nWORKDIR /w\nCMD ["x"]\n'
    first = build(daemon, context, dockerfile).splitlines()
    again = build(daemon, context, dockerfile)
    assert again.count("Using cache") == 5
    built = [line for line in first if line.startswith("Successfully built")]
    assert built[0] in again


def test_a_history_is_never_another_dockerfiles(daemon: Daemon, context: Path) -> None:
    build(daemon, context, "FROM busybox\nRUN true\nRUN echo same > /same\n")
    build(daemon, context, "FROM busybox\nRUN echo same > /same\n")
    history = daemon.docker_ok("history", "--no-trunc", "--format", "{{.CreatedBy}}", "solved").splitlines()
    assert [line for line in history if line.startswith("RUN")] == ["RUN /bin/sh -c echo same > /same"]


def test_source_date_epoch_makes_two_daemons_build_the_same_image(
    daemon: Daemon, own_daemon: Daemon, context: Path
) -> None:
    (context / "f").write_text("f")
    dockerfile = (
        "FROM busybox\nRUN mkdir /d && echo x > /d/x && ln /d/x /d/y\nCOPY f /copied/f\nWORKDIR /made\nENV A=1\n"
    )
    ids = []
    for target in (daemon, own_daemon):
        # the two import busybox at different times
        daemon.docker_ok("save", "-o", context.parent / "base.tar", "busybox")
        target.docker_ok("load", "-i", context.parent / "base.tar")
        build(target, context, dockerfile, "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000000000")
        ids.append(target.docker_ok("inspect", "-f", "{{.Id}} {{.Created}}", "solved"))
        time.sleep(1.1)
    assert ids[0] == ids[1]
    assert "2001-09-09T01:46:40" in ids[0]


def test_a_failure_stops_the_other_stages_and_tells_what_they_said(daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox AS slow\nRUN sleep 60\nFROM busybox AS bad\nRUN echo because && false\nFROM slow\nCOPY --from=bad /x /x\n"
    )
    result = daemon.docker("build", context)
    assert result.code == 1
    assert "because" in result.out
    assert "returned a non-zero code: 1" in result.err


def test_eight_builds_of_one_dockerfile_at_once_agree(daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text(f'FROM busybox\nRUN echo {time.time_ns()} > /x; sleep 0.5\nCMD ["cat", "/x"]\n')
    with ThreadPoolExecutor(8) as pool:
        outs = list(pool.map(lambda _: daemon.docker_ok("build", "-q", context), range(8)))
    assert len(set(outs)) == 1


def test_a_local_context_is_built_from_where_it_lies_and_noticed_when_it_changes(daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nCOPY . /c\nRUN cat /c/f\n")
    (context / "f").write_text("one")
    (context / "d" / "e").mkdir(parents=True)
    (context / "d" / "e" / "left-out").write_text("x")
    (context / "d" / "e" / "kept").write_text("x")
    (context / "link").symlink_to("f")
    (context / ".dockerignore").write_text("d/*\n!d/e/kept\n")
    for expected in ("one", "two"):
        (context / "f").write_text(expected)
        daemon.lamina_ok("build", "-t", "solved", context)
        # docker sends the same context as a tar, and finds the same steps
        assert daemon.docker_ok("build", "-t", "sent", context).count("Using cache") == 2
        shown = daemon.docker_ok("run", "--rm", "solved", "sh", "-c", "cd /c; find . | sort; cat link")
        assert shown == f".\n./.dockerignore\n./Dockerfile\n./d\n./d/e\n./d/e/kept\n./f\n./link\n{expected}"


def test_several_targets_are_built_in_one_go(daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox AS a\nENV A=1\nFROM busybox AS b\nENV B=1\nFROM busybox AS c\n")
    out = daemon.lamina_ok("build", "--progress", "rawjson", "--target", "a", "--target", "b", context)
    built = json.loads(out.splitlines()[-1])
    assert built["event"] == "Built"
    shown = [daemon.docker_ok("inspect", "-f", "{{.Config.Env}}", image) for image in built["images"]]
    assert "A=1" in shown[0]
    assert "B=1" in shown[1]


def test_a_client_whose_directory_is_not_the_daemons_is_told_so(daemon: Daemon, context: Path) -> None:
    status = context.stat()
    body = json.dumps({"context": str(context), "device": status.st_dev, "inode": status.st_ino + 1})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket_path))
        fields = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        head = f"POST /lamina/build HTTP/1.1\r\n{fields}\r\n"
        client.sendall((head + body).encode())
        assert b" 409 " in client.recv(4096).split(b"\r\n")[0]


def test_lint_is_told_at_the_end_of_a_build_and_alone_with_check(daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("from busybox\nWORKDIR here\nRUN echo $nothing\nCMD echo hi\n")
    out = daemon.lamina_ok("build", "-t", "solved", context)
    assert "JSONArgsRecommended" in out
    checked = daemon.lamina("build", "--check", context)
    assert checked.code == 1
    assert (
        "WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
        in checked.out
    )
    assert "WARNING: WorkdirRelativePath" in checked.out
    (context / "Dockerfile").write_text("# check=error=true\nFROM busybox\nCMD echo hi\n")
    for cli in (daemon.docker, daemon.lamina):
        assert "JSONArgsRecommended" in cli("build", context).err
    (context / "Dockerfile").write_text("# check=skip=all\nFROM busybox\nCMD echo hi\n")
    assert daemon.lamina("build", "--check", context).code == 0


def test_what_a_step_replaces_is_what_later_steps_and_containers_see(daemon: Daemon, context: Path) -> None:
    dockerfile = (
        "FROM busybox\nRUN mkdir /t /o && echo t > /t/x && echo o > /o/x && ln -s /t /e\n"
        "RUN rm /e && mkdir /e && echo new > /e/y\nRUN rm -r /o && mkdir /o && echo again > /o/y\nRUN rm /t/x && ln /t /dev/null || true\n"
        "RUN find /e /o /t -type f | sort > /seen\n"
    )
    build(daemon, context, dockerfile)
    files = daemon.docker_ok("run", "--rm", "solved", "sh", "-c", "find /e /o /t -type f | sort")
    assert files == "/e/y\n/o/y"
    assert daemon.docker_ok("run", "--rm", "solved", "cat", "/seen") == files
