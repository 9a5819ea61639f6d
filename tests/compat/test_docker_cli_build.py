"""The classic builder through the docker command line: what an image holds and how a build is told, as docker has it."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import Daemon, serving


def build(daemon: Daemon, context: Path, dockerfile: str, *options: str | Path) -> str:
    (context / "Dockerfile").write_text(dockerfile)
    return daemon.docker_ok("build", "-t", "built", *options, context)


def failure(daemon: Daemon, context: Path, dockerfile: str, *options: str) -> str:
    (context / "Dockerfile").write_text(dockerfile)
    result = daemon.docker("build", *options, context)
    assert result.code != 0, result.out
    return result.err


def run(daemon: Daemon, *command: str) -> str:
    return daemon.docker_ok("run", "--rm", "built", *command)


def config(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.docker_ok("inspect", "-f", "{{json .Config}}", "built"))
    return found


def layers(daemon: Daemon) -> list[list[str]]:
    """The names in each layer of the image, the lowest first."""
    archive = tarfile.open(fileobj=io.BytesIO(daemon_save(daemon)))
    manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    return [tarfile.open(fileobj=archive.extractfile(name)).getnames() for name in manifest[0]["Layers"]]


def daemon_save(daemon: Daemon) -> bytes:
    target = daemon.base / "saved.tar"
    daemon.docker_ok("save", "-o", target, "built")
    try:
        return target.read_bytes()
    finally:
        target.unlink()


def test_an_entry_point_keeps_the_command_of_its_own_stage_and_drops_the_bases(daemon: Daemon, context: Path) -> None:
    build(daemon, context, 'FROM busybox\nCMD ["a"]\nENTRYPOINT ["b"]\n')
    assert config(daemon)["Cmd"] == ["a"]
    build(daemon, context, 'FROM busybox AS base\nCMD ["a"]\nFROM base\nENTRYPOINT ["b"]\n')
    assert config(daemon).get("Cmd") is None


def test_an_image_without_a_path_gets_dockers(daemon: Daemon, context: Path) -> None:
    build(daemon, context, "FROM busybox\nENV PATH=$PATH:/opt/bin\n")
    assert config(daemon)["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin"]


def test_a_copied_directory_is_made_for_everybody_and_one_that_exists_keeps_its_mode(
    daemon: Daemon, context: Path
) -> None:
    (context / "d" / "s").mkdir(parents=True)
    (context / "d").chmod(0o700)
    (context / "d" / "s").chmod(0o750)
    dockerfile = "FROM busybox\nRUN mkdir -m 711 /old && mkdir -m 700 /old/s\nCOPY d /new\nCOPY --chown=7:8 d /old\n"
    build(daemon, context, dockerfile)
    shown = run(daemon, "stat", "-c", "%n %a %u:%g", "/new", "/new/s", "/old", "/old/s").splitlines()
    assert shown == ["/new 755 0:0", "/new/s 750 0:0", "/old 711 0:0", "/old/s 750 7:8"]


def test_a_number_alone_owns_as_user_and_as_group(daemon: Daemon, context: Path) -> None:
    (context / "f").write_text("x")
    build(daemon, context, "FROM busybox\nCOPY --chown=1000 f /a\nCOPY --chown=bob f /b\nCOPY --chown=bob:extra f /c\n")
    shown = run(daemon, "stat", "-c", "%u:%g", "/a", "/b", "/c").splitlines()
    assert shown == ["1000:1000", "1000:1000", "1000:77"]


@pytest.mark.parametrize(
    ("mode", "file_mode", "directory_mode"),
    [("640", "640", "640"), ("u=rwX,go=rX", "644", "755"), ("a-w,u+s", "4444", "4555"), ("g+w", "664", "775")],
)
def test_chmod_takes_octal_and_symbols(
    daemon: Daemon, context: Path, mode: str, file_mode: str, directory_mode: str
) -> None:
    (context / "d" / "s").mkdir(parents=True)
    (context / "d" / "f").write_text("x")
    (context / "d" / "f").chmod(0o644)
    (context / "d" / "s").chmod(0o755)
    build(daemon, context, f"FROM busybox\nCOPY --chmod={mode} d /d/\n")
    assert run(daemon, "stat", "-c", "%a", "/d/f", "/d/s").split() == [file_mode, directory_mode]


def test_a_wildcard_may_match_nothing_and_follows_links(daemon: Daemon, context: Path) -> None:
    (context / "package.json").write_text("{}")
    (context / "real").mkdir()
    (context / "real" / "inside").write_text("in")
    (context / "link-file").symlink_to("package.json")
    (context / "link-directory").symlink_to("real")
    build(daemon, context, "FROM busybox\nCOPY package.json yarn.lock* /app/\nCOPY link-* /links/\n")
    assert run(daemon, "ls", "/app", "/links").split() == ["/app:", "package.json", "/links:", "inside", "link-file"]
    assert run(daemon, "stat", "-c", "%F", "/links/link-file") == "regular file"
    assert "no source files were specified" in failure(daemon, context, "FROM busybox\nCOPY nothing* /x/\n")


def test_what_an_exception_brings_back_is_copied_with_its_directory(daemon: Daemon, context: Path) -> None:
    (context / "src" / "deep").mkdir(parents=True)
    for name in ("src/a.py", "src/a.txt", "src/deep/b.py"):
        (context / name).write_text(name)
    (context / ".dockerignore").write_text("*\n!src/**/*.py\n!src/*.py\n")
    (context / "Dockerfile").write_text("FROM busybox\nCOPY src /c\n")
    # docker's command line itself does not look below src/deep
    daemon.lamina_ok("build", "-t", "built", context)
    assert run(daemon, "find", "/c", "-type", "f").splitlines() == ["/c/a.py", "/c/deep/b.py"]


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("FROM busybox\nCOPY d /etc/passwd\n", "cannot copy to non-directory: /etc/passwd"),
        ("FROM busybox\nWORKDIR /etc/passwd\n", "cannot copy to non-directory: /etc/passwd"),
        ("FROM busybox\nRUN mkdir /e && ln -s /tmp /e/k\nCOPY d /e/\n", "cannot copy to non-directory: /e/k"),
        ("FROM busybox\nRUN ln -s /loop /loop\nCOPY f /loop/\n", "too many links"),
        ("FROM busybox\nCOPY --chmod=999 f /z\n", "invalid chmod parameter: '999'"),
        ("FROM busybox\nCOPY --chown=nobody-here f /z\n", "can't find user"),
        ("FROM busybox\nRUN []\n", "No command specified"),
        ("FROM busybox\nSTOPSIGNAL FOO\n", "Invalid signal: FOO"),
        ("FROM busybox\nWORKDIR $EMPTY\n", "cannot normalize nothing"),
        ("FROM busybox\nADD --checksum=sha256:00 f /f\n", "checksum requires HTTP(S) or Git sources"),
        (
            "FROM busybox\nADD --checksum=sha256:00 http://h/a f /f/\n",
            "checksum can't be specified for multiple sources",
        ),
        ("FROM busybox\nRUN --security=bogus true\n", 'security "bogus" is not valid'),
        ("FROM busybox\nCOPY --from=5 f /f\n", "invalid from flag value 5: index out of bounds"),
        ("ARG NOPE\nFROM $NOPE\n", "base name ($NOPE) should not be blank"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(
    daemon: Daemon, context: Path, dockerfile: str, message: str
) -> None:
    (context / "d" / "k").mkdir(parents=True)
    (context / "d" / "k" / "z").write_text("z")
    (context / "f").write_text("f")
    assert message in failure(daemon, context, dockerfile)


@pytest.mark.parametrize(
    "instruction",
    [
        "STOPSIGNAL FOO",
        "COPY missing /x",
        "COPY --chown=nosuch f /x",
        "RUN true",
        "ADD --checksum=sha256:00 f /f",
        "ARG A=${nope:?must}",
    ],
)
def test_what_fails_is_shown_where_it_stands(daemon: Daemon, context: Path, instruction: str) -> None:
    (context / "f").write_text("f")
    err = failure(daemon, context, f"FROM busybox\nUSER nosuch\n{instruction}\n")
    assert (
        f"Dockerfile:3\n--------------------\n   1 |     FROM busybox\n   2 |     USER nosuch\n   3 | >>> {instruction}\n"
        in err
    )
    assert err.count("Dockerfile:3") == 1


def test_a_base_that_is_not_there_is_shown_where_it_is_asked_for(daemon: Daemon, context: Path) -> None:
    assert "   1 | >>> FROM no-such.invalid/image\n" in failure(daemon, context, "FROM no-such.invalid/image\n")
    assert "   2 | >>> FROM $A\n" in failure(daemon, context, "ARG A\nFROM $A\n")
    assert "   1 | >>> ARG A=${B:?must}\n" in failure(daemon, context, "ARG A=${B:?must}\nFROM $A\n")


def test_arguments_take_their_values_one_after_another(daemon: Daemon, context: Path) -> None:
    dockerfile = "ARG G=${nope:?must}\nFROM busybox\nARG A=1 B=$A C=${nope:?must}\nARG G\nRUN echo $A$B$C$G > /out\n"
    build(daemon, context, dockerfile, "--build-arg", "C=3", "--build-arg", "G=g")
    assert run(daemon, "cat", "/out") == "113g"
    assert "C: must" not in failure(daemon, context, dockerfile, "--build-arg", "G=g")
    assert "ARG A=1 B=1 C=3" in daemon.docker_ok("history", "--no-trunc", "--format", "{{.CreatedBy}}", "built")


def test_of_two_stages_with_one_name_the_later_is_meant(daemon: Daemon, context: Path) -> None:
    dockerfile = "FROM busybox AS a\nRUN echo 1 > /f\nFROM a AS a\nRUN echo 2 >> /f\nFROM a\nCOPY --from=a /f /from\n"
    build(daemon, context, dockerfile)
    assert run(daemon, "cat", "/f", "/from").split() == ["1", "2", "1", "2"]
    checked = daemon.lamina("build", "--check", context)
    assert checked.code == 1
    assert 'Duplicate stage name "a"' in checked.out


def test_here_documents_are_expanded_with_the_files_escape(daemon: Daemon, context: Path) -> None:
    build(daemon, context, "# escape=`\nFROM busybox\nENV A=x\nCOPY <<E /e\n`$A $A C:\\d\nE\n")
    assert run(daemon, "cat", "/e") == "$A x C:\\d"


def test_two_names_of_one_file_stay_one_file(daemon: Daemon, context: Path) -> None:
    build(
        daemon,
        context,
        "FROM busybox AS one\nRUN mkdir /o && echo x > /o/a && ln /o/a /o/h\nFROM busybox\nCOPY --from=one /o /p\n",
    )
    assert run(daemon, "stat", "-c", "%h", "/p/a", "/p/h").split() == ["2", "2"]


def test_add_extracts_every_archive_that_a_wildcard_matches_and_copies_what_only_looks_like_one(
    daemon: Daemon, context: Path
) -> None:
    for number in (1, 2):
        with tarfile.open(context / f"a{number}.tar", "w") as tar:
            header = tarfile.TarInfo(f"in{number}")
            header.size = 1
            tar.addfile(header, io.BytesIO(b"x"))
    (context / "b.gz").write_bytes(b"\x1f\x8b no archive")
    build(daemon, context, "FROM busybox\nADD *.tar b.gz /t/\nADD --unpack=false a1.tar /u/\n")
    assert run(daemon, "ls", "/t", "/u").split() == ["/t:", "b.gz", "in1", "in2", "/u:", "a1.tar"]


def test_labels_of_the_command_line_are_taken_as_given(daemon: Daemon, context: Path) -> None:
    build(daemon, context, "FROM busybox\nENV HOME=/root\n", "--label", 'z=$HOME "q"')
    assert config(daemon)["Labels"] == {"z": '$HOME "q"'}


def test_a_command_that_changes_nothing_makes_no_layer(daemon: Daemon, context: Path) -> None:
    build(daemon, context, "FROM busybox\nRUN true\nRUN echo x > /etc/x\n")
    history = daemon.docker_ok("history", "--format", "{{.Size}}", "built").splitlines()
    assert history[1] == "0B"
    assert layers(daemon)[1:] == [["etc", "etc/x"]]


def test_history_shows_instructions_expanded_and_in_dockers_form(daemon: Daemon, context: Path) -> None:
    build(daemon, context, "FROM busybox\nARG A=1\nenv M=$A\nEXPOSE 80\nUSER $M\nRUN echo hi\n")
    history = daemon.docker_ok("history", "--no-trunc", "--format", "{{.CreatedBy}}", "built").splitlines()
    assert history[:5] == ["RUN |1 A=1 /bin/sh -c echo hi", "USER 1", "EXPOSE [80/tcp]", "ENV M=1", "ARG A=1"]


def test_a_build_argument_matters_from_its_first_use_on(daemon: Daemon, context: Path) -> None:
    dockerfile = "FROM busybox\nRUN echo before\nARG U=1\nENV   Z=1\nRUN echo $U\n"
    build(daemon, context, dockerfile)
    again = build(daemon, context, dockerfile.replace("ENV   Z", "env Z"), "--build-arg", "U=9")
    assert again.count("Using cache") == 3
    assert again.count("Running in") == 1


def test_a_dockerfile_from_elsewhere_is_no_part_of_the_context(daemon: Daemon, context: Path, tmp_path: Path) -> None:
    (context / "f").write_text("f")
    other = tmp_path / "Other"
    other.write_text("FROM busybox\nCOPY . /c\n")
    for build_it in (daemon.docker_ok, daemon.lamina_ok):
        build_it("build", "-t", "built", "-f", other, context)
        assert run(daemon, "find", "/c", "-type", "f") == "/c/f"
        build_it("build", "-t", "built", "-f", "-", context, data=other.read_bytes())
        assert run(daemon, "find", "/c", "-type", "f") == "/c/f"


def test_the_exit_code_is_the_failed_commands_and_a_quiet_build_tells_why(daemon: Daemon, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo because && exit 7\n")
    for cli in (daemon.docker, daemon.lamina):
        assert cli("build", context).code == 7
    quiet = daemon.docker("build", "-q", context)
    assert quiet.code != 0
    assert "because" in quiet.out + quiet.err


def test_what_is_wrong_before_the_first_step_is_told_by_the_status(daemon: Daemon, context: Path) -> None:
    assert "Error response from daemon: dockerfile parse error" in failure(daemon, context, "FORM busybox\n")
    assert "target stage x could not be found" in failure(daemon, context, "FROM busybox\n", "--target", "x")


def test_a_client_that_does_not_read_makes_the_build_wait(daemon: Daemon) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        data = b"FROM busybox\nRUN yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
        header = tarfile.TarInfo("Dockerfile")
        header.size = len(data)
        archive.addfile(header, io.BytesIO(data))
    body = tar.getvalue()
    assert daemon.process is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.socket_path))
        client.sendall(b"POST /build?nocache=1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        grown = []
        for _ in range(3):
            time.sleep(0.7)
            grown.append(_resident_bytes(daemon.process.pid))
    assert grown[-1] - grown[0] < 8 << 20
    deadline = time.monotonic() + 20
    while "yes aaaa" in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < deadline, "the step of a client that has gone still runs"
        time.sleep(0.1)


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0


def test_no_step_makes_a_larger_layer_than_the_daemon_allows(
    needs_root: None, tmp_path: Path, busybox_tar: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "large").write_bytes(bytes(20 << 20))
    with serving(tmp_path / "lamina", busybox_tar, ["--max-layer-size", str(16 << 20)]) as served:
        for step in ("COPY large /", "RUN head -c 20000000 /dev/zero > /large"):
            (context / "Dockerfile").write_text(f"FROM busybox\n{step}\n")
            result = served.docker("build", context)
            assert result.code != 0
            assert "more than 16777216 bytes" in result.err
        assert list((served.root / "content" / "ingest").iterdir()) == []
