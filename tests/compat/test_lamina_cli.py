"""lamina's own command line: docker's grammar, output and exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, Daemon


def test_run_with_streams_and_exit_codes(daemon: Daemon) -> None:
    assert daemon.lamina_ok("run", "--rm", "busybox", "echo", "hi") == "hi"
    assert daemon.lamina_ok("run", "-i", "--rm=true", "busybox", "cat", data=b"through\n") == "through"
    result = daemon.lamina("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (result.code, result.out, result.err) == (5, "out\n", "err\n")


_TEMPLATE = "template parsing error: template: :1: unclosed action"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--rm", "busybox", "nonexistent"], 127, "executable file not found"),
        (["run", "--rm", "busybox", "/etc"], 126, "permission denied"),
        (["run", "--rm", "busybox", "nonexistent"], 127, "\n\nRun 'lamina run --help' for more information\n"),
        # the command line is wrong
        (["run", "--bogus", "busybox"], 125, "unknown flag: --bogus\n\nUsage:  lamina run [OPTIONS] IMAGE"),
        (["ps", "--bogus"], 125, "unknown flag: --bogus\n\nUsage:  lamina ps [OPTIONS]\n\nRun 'lamina ps --help'"),
        (["-Z"], 125, "unknown shorthand flag: 'Z' in -Z"),
        (["run"], 1, "lamina: 'lamina run' requires at least 1 argument"),
        (["create"], 1, "lamina: 'lamina create' requires at least 1 argument"),
        (["frobnicate"], 1, "lamina: unknown command: lamina frobnicate\n\nRun 'lamina --help'"),
        (["container", "foo"], 1, "lamina: unknown command: lamina container foo\n\nUsage:  lamina container"),
        (["help", "foo"], 1, "unknown help topic: foo"),
        (["ps", "--filter", "nonsense"], 125, 'invalid argument "nonsense" for "-f, --filter" flag: bad format of'),
        (["-l", "bogus", "ps"], 1, "Unable to parse logging level: bogus"),
        (["-c", "foo", "ps"], 1, 'context "foo": context not found'),
        # values that cannot be read
        (["run", "--cpus", "foo", "busybox"], 125, 'invalid argument "foo" for "--cpus" flag: failed to parse foo'),
        (["run", "--pids-limit", "x", "busybox"], 125, 'strconv.ParseInt: parsing "x": invalid syntax'),
        (["run", "--stop-timeout", "x", "busybox"], 125, 'invalid argument "x" for "--stop-timeout" flag'),
        (["run", "--restart", "on-failure:x", "busybox"], 125, "lamina: invalid restart policy format"),
        (["run", "--mount", "type=tmpfs,target=/x,tmpfs-mode=9", "busybox"], 125, "invalid value for tmpfs-mode: 9"),
        (["run", "--dns", "bogus", "busybox"], 125, "IP address is not correctly formatted: bogus"),
        (["run", "-a", "bogus", "busybox"], 125, "valid streams are STDIN, STDOUT and STDERR"),
        (["run", "--pull", "bogus", "busybox"], 125, "lamina: invalid pull option: 'bogus'"),
        (["import", "--platform", "bogus", "/dev/null"], 1, '"bogus": unknown operating system or architecture'),
        # files that are not there
        (["run", "--env-file", "/nosuch", "busybox"], 125, "lamina: open /nosuch: no such file or directory"),
        (["run", "--label-file", "/nosuch", "busybox"], 125, "lamina: open /nosuch: no such file or directory"),
        (["run", "--cidfile", "/nosuch/x", "busybox"], 127, "lamina: failed to create the container ID file: open"),
        (["export", "-o", "/nosuch/x", "c"], 1, "failed to export container: invalid output path: stat /nosuch"),
        (["save", "-o", "/nosuch/x", "busybox"], 1, "failed to save image: invalid output path: stat /nosuch"),
        (["load", "-i", "/nosuch"], 1, "open /nosuch: no such file or directory"),
        (["import", "/nosuch"], 1, "open /nosuch: no such file or directory"),
        # what is wrong together
        (["run", "-it", "busybox"], 1, "the input device is not a TTY"),
        (["run", "-d", "-a", "stdout", "busybox"], 1, "conflicting options: cannot specify both --attach and --detach"),
        (["run", "--rm", "--restart", "always", "busybox"], 125, "cannot specify both --restart and --rm"),
        (["start", "-a", "one", "two"], 1, "you cannot start and attach multiple containers at once"),
        # what does not exist
        (
            ["run", "nothing"],
            125,
            "Unable to find image 'nothing:latest' locally\nlamina: Error response from daemon: ",
        ),
        (["create", "nothing"], 1, "Unable to find image 'nothing:latest' locally\nError response from daemon: "),
        (["run", "--pull", "never", "nothing"], 125, "Error response from daemon: No such image: nothing:latest"),
        (["rm", "nothing"], 1, "Error response from daemon: No such container: nothing"),
        (["rm", "-f", "nothing"], 0, "Error response from daemon: No such container: nothing"),
        (["start", "nothing", "none"], 1, "Error: failed to start containers: nothing, none"),
        (["inspect", "nothing"], 1, "Error: No such object: nothing"),
        (["inspect", "--type", "container", "nothing"], 1, "Error response from daemon: No such container: nothing"),
        (["container", "inspect", "busybox"], 1, "Error response from daemon: No such container: busybox"),
        (["volume", "rm", "nothing"], 1, "Error response from daemon: get nothing: no such volume"),
        # templates
        (["inspect", "-f", "{{.x", "busybox"], 64, _TEMPLATE),
        (["inspect", "-f", "{{.x}}", "busybox"], 1, 'template parsing error: template: :1:2: executing "" at <.x>'),
        (["version", "-f", "{{.x"], 64, "template parsing error: template: version:1: unclosed action"),
        (["ps", "--format", "{{.x"], 1, "failed to parse template: template: :1: unclosed action"),
        (["images", "--format", "{{.x"], 1, "template parsing error: template: :1: unclosed action"),
        (["images", "--format", "{{.x}}"], 1, "can't evaluate field x in type *formatter.imageContext"),
    ],
)
def test_errors_are_worded_and_coded_as_docker_s(daemon: Daemon, arguments: list[str], code: int, message: str) -> None:
    result = daemon.lamina(*arguments)
    assert message in result.err
    assert result.code == code
    assert "Traceback" not in result.err


_ALIKE = (
    ["ps", "-a"],
    ["ps", "-as"],
    ["ps", "-aq", "--no-trunc"],
    ["ps", "-n", "-1"],
    ["ps", "-a", "--format", "json"],
    ["ps", "-a", "--format", "raw"],
    ["ps", "-a", "--format", "{{.Names}} {{.CreatedAt}} {{.Size}} {{.Mounts}} {{.Platform}} {{.Label `l`}}"],
    ["ps", "-a", "--format", r"table {{.ID | upper}}\t{{.Label `l`}}\t{{.LocalVolumes}}\t{{json .Labels}}"],
    ["images"],
    ["images", "--digests", "--no-trunc"],
    ["images", "--format", "json"],
    ["images", "--format", "{{.Repository}} {{.CreatedAt}} {{.Size}}"],
    ["history", "busybox"],
    ["history", "-H=false", "busybox"],
    ["history", "--format", "json", "busybox"],
    ["volume", "ls"],
    ["volume", "ls", "--format", "json"],
    ["volume", "inspect", "a-volume-whose-name-is-long"],
    ["network", "ls"],
    ["network", "ls", "--format", "json"],
    ["network", "inspect", "bridge", "-f", "{{.Name}} {{.Labels}} {{.Internal}}"],
    ["system", "df"],
    ["system", "df", "-v"],
    ["inspect", "alike"],
    ["inspect", "-f", r"{{.Mounts}}\t{{.HostConfig.LogConfig}} {{.Config.Labels.nosuch}} {{.ID}}", "alike"],
    ["info", "-f", "{{.Driver}} {{json .Plugins}}"],
    ["version", "-f", "{{.Server.APIVersion}}"],
)


@pytest.fixture(scope="module")
def alike(daemon: Daemon) -> Iterator[None]:
    """A container with something in every column."""
    volume = "a-volume-whose-name-is-long:/x"
    daemon.docker_ok(
        "create", "--name", "alike", "-l", "l=<m>", "-v", volume, "busybox", "sh", "-c", 'echo "a" b c d e'
    )
    yield
    daemon.docker_ok("rm", "alike")
    daemon.docker_ok("volume", "rm", "a-volume-whose-name-is-long")


def _without_seconds(line: str) -> str:
    """A line without the ages that may change between two commands; of many rows, some always do."""
    return re.sub(r"(\d+ seconds|\d+ minutes|Less than a second|About a minute) ago +", "now ", line)


@pytest.mark.parametrize("arguments", _ALIKE, ids=" ".join)
def test_what_is_printed_is_what_docker_prints(daemon: Daemon, alike: None, arguments: list[str]) -> None:
    # docker lists the names of one image in no order
    arranged = sorted if arguments[0] in ("images", "system") else list
    for _ in range(10):  # a second may pass between the two
        lamina, docker = daemon.lamina(*arguments), daemon.docker(*arguments)
        shown, expected = (arranged(map(_without_seconds, result.out.splitlines())) for result in (lamina, docker))
        if shown == expected:
            break
    assert shown == expected
    assert (lamina.err, lamina.code) == (docker.err, docker.code)


def test_a_group_tells_of_its_commands_and_help_of_a_command_s_flags(daemon: Daemon) -> None:
    assert "  prune       Remove all stopped containers" in daemon.lamina_ok("container", "--help")
    assert "Manage volumes" in daemon.lamina("volume").err
    assert "Usage:  lamina run [OPTIONS] IMAGE [COMMAND] [ARG...]" in daemon.lamina_ok("help", "run")
    assert daemon.lamina_ok("container", "ps", "-q") == daemon.lamina_ok("ps", "-q")


def test_the_host_may_be_written_onto_its_flag(daemon: Daemon) -> None:
    assert daemon.lamina(f"-H{daemon.host}", "--log-level", "info", "--config", "/nosuch", "ps").code == 0


def test_two_dashes_behind_the_image_are_of_the_command(daemon: Daemon) -> None:
    assert daemon.lamina_ok("run", "--rm", "busybox", "echo", "--", "x") == "-- x"
    assert daemon.lamina("run", "--rm", "busybox", "--", "true").code == 127
    assert daemon.lamina_ok("run", "--rm", "-ti=false", "busybox", "echo", "x") == "x\r\n".strip()


def test_paths_from_here_are_mounted(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "f").write_text("here")
    for source in (["-v", "./t:/x"], ["--mount", "type=bind,source=./t,target=/x,ro"]):
        result = daemon.lamina("run", "--rm", *source, "busybox", "cat", "/x/f", cwd=tmp_path)
        assert (result.out, result.err) == ("here", "")


def test_an_image_in_use_fails_a_removal_even_if_another_is_missing(daemon: Daemon, busybox_tar: Path) -> None:
    image = daemon.lamina_ok("import", busybox_tar, "used")
    container = daemon.lamina_ok("run", "-d", "used", "sleep", "60")
    result = daemon.lamina("rmi", "-f", image, "nothing")
    assert (result.code, result.out) == (1, "")
    daemon.lamina_ok("rm", "-f", container)
    assert daemon.lamina("rmi", "-f", image, "nothing").code == 0


def test_a_container_id_file_has_the_id_or_is_not_there(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    container = daemon.lamina_ok("create", "--cidfile", file, "busybox", "true")
    assert file.read_text() == container
    assert "container ID file found" in daemon.lamina("create", "--cidfile", file, "busybox", "true").err
    daemon.lamina_ok("rm", container)
    assert daemon.lamina("run", "--cidfile", tmp_path / "other", "nothing").code == 125
    assert not (tmp_path / "other").exists()


def test_pruning_removes_what_the_filter_names(daemon: Daemon) -> None:
    container = daemon.lamina_ok("create", "-l", "prune=me", "busybox", "true")
    out = daemon.lamina_ok("container", "prune", "-f", "--filter", "label=prune=me")
    assert out == f"Deleted Containers:\n{container}\n\nTotal reclaimed space: 0B"
    assert daemon.lamina("container", "prune", data=b"n\n").out.endswith("Are you sure you want to continue? [y/N] ")
    assert daemon.lamina_ok("image", "prune", "-f", "--filter", "label=nosuch") == "Total reclaimed space: 0B"


def test_volumes_are_made_listed_and_removed(daemon: Daemon) -> None:
    assert daemon.lamina_ok("volume", "create", "--label", "a=b", "made") == "made"
    assert daemon.lamina_ok("volume", "ls", "--format", '{{.Label "a"}}', "-f", "name=made") == "b"
    assert daemon.lamina_ok("volume", "rm", "made") == "made"


def test_a_container_from_create_to_rm(daemon: Daemon) -> None:
    container = daemon.lamina_ok(
        "create", "--name", "cli", "-e", "A=b", "busybox", "sh", "-c", "echo $A; exec sleep 60"
    )
    assert daemon.lamina_ok("start", "cli") == "cli"
    assert daemon.lamina_ok("ps", "-q", "--no-trunc", "--filter", "name=cli") == container
    assert (
        daemon.lamina_ok("ps", "--filter", "name=cli", "--format", "{{.Names}} {{.Image}} {{upper .State}}")
        == "cli busybox RUNNING"
    )
    assert json.loads(daemon.lamina_ok("inspect", "cli"))[0]["Id"] == container
    assert (
        daemon.lamina_ok("inspect", "-f", "{{range .Config.Env}}{{.}};{{end}}{{.State.Running}}", "cli") == "A=b;true"
    )
    daemon.lamina_ok("restart", "-t", "0", "cli")
    daemon.lamina_ok("kill", "cli")
    assert daemon.lamina_ok("wait", "cli") == "137"
    assert daemon.lamina_ok("logs", "--tail", "1", "cli") == "b"
    assert daemon.lamina_ok("stop", "cli") == "cli"
    assert daemon.lamina_ok("rm", "cli") == "cli"


def test_start_attached_gives_output_and_code(daemon: Daemon) -> None:
    daemon.lamina_ok("create", "--name", "again", "busybox", "sh", "-c", "echo run; exit 3")
    result = daemon.lamina("start", "-a", "again")
    assert (result.code, result.out) == (3, "run\n")
    daemon.lamina_ok("container", "rm", "again")


def test_attach_follows_a_running_container(daemon: Daemon) -> None:
    container = daemon.lamina_ok("run", "-d", "busybox", "sh", "-c", "sleep 1; echo late; exit 2")
    result = daemon.lamina("attach", "--no-stdin", container)
    assert (result.code, result.out) == (2, "late\n")
    daemon.lamina_ok("rm", container)


def test_build_history_tag_save_load_and_rmi(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    (tmp_path / "skipped").write_text("s")
    (tmp_path / ".dockerignore").write_text("skipped\n")
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nARG V=1\nCOPY . /c/\nRUN test ! -e /c/skipped && echo $V > /v\nLABEL x=y\n"
    )
    out = daemon.lamina_ok("build", "-t", "cli:1", "--build-arg", "V=2", "--iidfile", tmp_path / "id", tmp_path)
    assert "Successfully tagged cli:1" in out
    assert daemon.lamina_ok("run", "--rm", "cli:1", "cat", "/v", "/c/f") == "2\nf"
    assert daemon.lamina_ok("images", "-q", "--no-trunc", "cli") == (tmp_path / "id").read_text()
    assert "COPY . /c/" in daemon.lamina_ok("history", "cli:1")
    daemon.lamina_ok("tag", "cli:1", "cli:2")
    daemon.lamina_ok("save", "-o", tmp_path / "s.tar", "cli:2")
    assert "Untagged: cli:2" in daemon.lamina_ok("rmi", "cli:2")
    assert daemon.lamina_ok("load", "-i", tmp_path / "s.tar") == "Loaded image: cli:2"
    daemon.lamina_ok("rmi", "cli:2", "cli:1")


def test_build_from_standard_input(daemon: Daemon) -> None:
    image = daemon.lamina_ok("build", "-q", "-", data=b"FROM busybox\nRUN echo stdin > /f\n")
    assert daemon.lamina_ok("run", "--rm", image, "cat", "/f") == "stdin"
    daemon.lamina_ok("rmi", image)


def test_import_and_export_are_inverse(daemon: Daemon, busybox_tar: Path, tmp_path: Path) -> None:
    daemon.lamina_ok("import", "-c", "ENV K=v", busybox_tar, "imported")
    container = daemon.lamina_ok("run", "-d", "imported", "sh", "-c", "echo $K > /k; rm /etc/group")
    daemon.lamina_ok("wait", container)
    daemon.lamina_ok("export", "-o", tmp_path / "e.tar", container)
    with tarfile.open(tmp_path / "e.tar") as tar:
        names = tar.getnames()
        assert "etc/group" not in names
        member = tar.extractfile("k")
        assert member is not None
        assert member.read() == b"v\n"
        assert tar.getmember("bin/sh").issym()
    daemon.lamina_ok("rm", container)
    daemon.lamina_ok("rmi", "imported")


def test_version_info_events_and_doctor(daemon: Daemon) -> None:
    assert json.loads(daemon.lamina_ok("version", "--format", "json"))["Server"]["ApiVersion"] == "1.51"
    assert "Storage Driver: " in daemon.lamina_ok("info")
    assert daemon.lamina_ok("events", "--since", "1h", "--until", "0.1s") != ""
    assert daemon.lamina("doctor", "--root", daemon.root).out.startswith("ok       root")


def test_an_unreachable_daemon_is_told(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "lamina.cli.main", "-H", f"unix://{tmp_path}/none.sock", "ps"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Is the lamina daemon running?" in done.stderr


def test_the_compatibility_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "compatibility"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "compatibility.md").read_text(), "run: make compatibility"
