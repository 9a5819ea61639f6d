"""The unmodified docker command line: images and builds; skopeo and podman as peers."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import Daemon


def test_import_takes_every_compression(daemon: Daemon, busybox_tar: Path, tmp_path: Path) -> None:
    for name, command in (
        ("gz", ["gzip", "-c"]),
        ("xz", ["xz", "-0c"]),
        ("zst", ["zstd", "-qc"]),
        ("bz2", ["bzip2", "-c"]),
    ):
        packed = tmp_path / f"b.tar.{name}"
        packed.write_bytes(subprocess.run([*command, str(busybox_tar)], capture_output=True, check=True).stdout)
        daemon.docker_ok("import", packed, f"packed-{name}")
        assert daemon.docker_ok("run", "--rm", f"packed-{name}", "echo", name) == name
        daemon.docker_ok("rmi", f"packed-{name}")


def test_the_quickstart_has_four_history_entries_and_a_layer_of_run_sh_alone(
    daemon: Daemon, busybox_tar: Path, tmp_path: Path
) -> None:
    daemon.docker_ok("import", "-c", 'CMD ["sh"]', busybox_tar, "debian:12")
    context = Path(__file__).parents[2] / "examples" / "quickstart"
    daemon.docker_ok("build", "-t", "quickstart", context)
    history = json.loads(
        f"[{','.join(daemon.docker_ok('history', '--no-trunc', '--format', '{{json .}}', 'quickstart').splitlines())}]"
    )
    assert [h["CreatedBy"] for h in history[:3]] == ['CMD ["./run.sh"]', "VOLUME [/data]", "ADD run.sh /"]
    assert len(history) == 4
    assert history[0]["Size"] == history[1]["Size"] == "0B"
    images = [json.loads(daemon.docker_ok("inspect", h["ID"]))[0] for h in history]
    for child, parent in itertools.pairwise(images):
        assert child["Parent"] == parent["Id"]
    assert images[0]["RootFS"] == images[1]["RootFS"] == images[2]["RootFS"]
    assert images[1]["Config"]["Volumes"] == {"/data": {}}
    assert images[0]["Config"]["Cmd"] == ["./run.sh"]
    daemon.docker_ok("save", "-o", tmp_path / "q.tar", "quickstart")
    subprocess.run(["tar", "-xf", tmp_path / "q.tar", "-C", tmp_path], check=True)
    layer = tmp_path / "blobs" / "sha256" / images[0]["RootFS"]["Layers"][-1].removeprefix("sha256:")
    assert subprocess.run(["tar", "-tf", layer], capture_output=True, text=True, check=True).stdout.split() == [
        "run.sh"
    ]
    daemon.docker_ok("rmi", "-f", "quickstart", "debian:12")


def test_a_dockerfile_of_twenty_instructions(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "sub" / "b.txt").write_text("b")
    (tmp_path / "ignored").write_text("no")
    (tmp_path / ".dockerignore").write_text("ignored\n")
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE=busybox\nFROM ${BASE} AS first\nRUN echo one > /one\nRUN rm /one && mkdir -p /d/e && echo two > /d/e/two\n"
        "FROM busybox\nLABEL who=me\nENV A=1 B=x$A\nARG C=3\nWORKDIR /w/x\nCOPY . .\nCOPY --chown=bob sub/ /s/\n"
        "COPY --from=first /d /d\nADD a.txt /added/\nRUN test $C = 3 && echo $A$B > /vars\nUSER bob\nEXPOSE 80 90/udp\n"
        'VOLUME /vol\nSTOPSIGNAL SIGINT\nSHELL ["/bin/sh", "-ec"]\nENTRYPOINT ["/bin/sh", "-c"]\n'
        'CMD ["cat /vars /d/e/two /added/a.txt; ls /w/x; stat -c %U /s/b.txt; test ! -e /one"]\n'
    )
    out = daemon.docker_ok("build", "-t", "twenty", tmp_path)
    assert "Step 1/" in out
    assert "Successfully tagged twenty:latest" in out
    assert daemon.docker_ok("run", "--rm", "twenty").split() == ["1x", "two", "aDockerfile", "a.txt", "sub", "bob"]
    again = daemon.docker_ok("build", "-t", "twenty", tmp_path)
    assert again.count("Using cache") >= 18
    assert "Running in" not in again
    config = json.loads(daemon.docker_ok("inspect", "twenty"))[0]["Config"]
    assert config["ExposedPorts"] == {"80/tcp": {}, "90/udp": {}}
    assert (config["User"], config["StopSignal"], config["WorkingDir"]) == ("bob", "SIGINT", "/w/x")
    daemon.docker_ok("rmi", "twenty")


def test_a_failing_run_gives_its_code_and_output(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo before; exit 9\n")
    result = daemon.docker("build", tmp_path)
    assert result.code == 9
    assert "before" in result.out
    assert "returned a non-zero code: 9" in result.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FORM busybox\n", "did you mean FROM?"),
        ("FROM busybox\nCOPY nothing /\n", "nothing"),
        ("", "empty"),
        ("FROM Bad\n", "lowercase"),
    ],
)
def test_a_wrong_dockerfile_is_named(daemon: Daemon, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    result = daemon.docker("build", tmp_path)
    assert result.code == 1
    assert message in result.err


def test_saved_images_load_again_with_the_same_ids(daemon: Daemon, tmp_path: Path) -> None:
    daemon.docker_ok("tag", "busybox", "one:1")
    before = daemon.docker_ok("inspect", "-f", "{{.Id}} {{.RootFS.Layers}}", "one:1")
    daemon.docker_ok("save", "-o", tmp_path / "s.tar", "one:1")
    daemon.docker_ok("rmi", "one:1")
    assert "Loaded image: one:1" in daemon.docker_ok("load", "-i", tmp_path / "s.tar")
    assert daemon.docker_ok("inspect", "-f", "{{.Id}} {{.RootFS.Layers}}", "one:1") == before
    daemon.docker_ok("rmi", "one:1")


def test_a_damaged_archive_is_refused_and_leaves_nothing(daemon: Daemon, tmp_path: Path) -> None:
    daemon.docker_ok("save", "-o", tmp_path / "s.tar", "busybox")
    data = bytearray((tmp_path / "s.tar").read_bytes())
    position = data.find(b"\x7fELF") + 5000
    data[position] ^= 0xFF
    (tmp_path / "bad.tar").write_bytes(data)
    before = sorted(os.listdir(daemon.root / "content" / "blobs" / "sha256"))
    result = daemon.docker("load", "-i", tmp_path / "bad.tar")
    assert result.code == 1
    assert "digest mismatch" in result.err
    assert sorted(os.listdir(daemon.root / "content" / "blobs" / "sha256")) == before
    assert list((daemon.root / "content" / "ingest").iterdir()) == []


def test_hostile_tars_are_refused_with_the_entry_s_name(daemon: Daemon, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../../outside"))
    result = daemon.docker("import", tmp_path / "evil.tar", "evil")
    assert result.code == 1
    assert "../../outside" in result.err
    truncated = gzip.compress(os.urandom(1000))[:-300]
    (tmp_path / "cut.tar.gz").write_bytes(truncated)
    assert daemon.docker("import", tmp_path / "cut.tar.gz", "cut").code == 1
    assert daemon.docker_ok("images", "-q", "evil") == ""


def test_copy_on_write_leaves_every_layer_as_it_was(daemon: Daemon) -> None:
    layers = json.loads(daemon.docker_ok("inspect", "busybox"))[0]["RootFS"]["Layers"]
    paths = [daemon.root / "content" / "blobs" / "sha256" / d.removeprefix("sha256:") for d in layers]
    before = [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
    daemon.docker_ok(
        "run", "--rm", "busybox", "sh", "-c", "echo x >> /etc/passwd; rm /etc/group; touch /new; rm -r /root"
    )
    assert [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths] == before
    out = daemon.docker_ok(
        "run", "--rm", "busybox", "sh", "-c", "tail -n1 /etc/passwd; ls -d /etc/group /root; ls /new 2>&1 | wc -l"
    )
    assert out.split("\n") == ["bob:x:1000:1000::/tmp:/bin/sh", "/etc/group", "/root", "1"]
    assert daemon.lamina_ok("verify", "busybox").endswith("busybox: ok")


def test_verify_tells_a_damaged_layer(daemon: Daemon, busybox_tar: Path, tmp_path: Path) -> None:
    data = busybox_tar.read_bytes() + bytes(10240)
    (tmp_path / "b.tar").write_bytes(data)
    daemon.docker_ok("import", tmp_path / "b.tar", "fragile")
    layer = json.loads(daemon.docker_ok("inspect", "fragile"))[0]["RootFS"]["Layers"][0].removeprefix("sha256:")
    path = daemon.root / "content" / "blobs" / "sha256" / layer
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    result = daemon.lamina("verify", "fragile")
    assert result.code == 1
    assert "damaged" in result.out
    daemon.docker_ok("rmi", "fragile")


def test_skopeo_reads_the_store_and_the_digests_are_the_same(daemon: Daemon, tmp_path: Path) -> None:
    skopeo = shutil.which("skopeo")
    assert skopeo is not None, "skopeo is not installed (make setup)"
    store = f"oci:{daemon.root}/content:busybox:latest"
    run = [skopeo, "--insecure-policy", "copy", store]
    subprocess.run([*run, f"docker-archive:{tmp_path}/a.tar:busybox:latest"], check=True, capture_output=True)
    subprocess.run([*run, "--preserve-digests", f"oci:{tmp_path}/oci:x"], check=True, capture_output=True)
    image = json.loads(daemon.docker_ok("inspect", "busybox"))[0]
    subprocess.run(["tar", "-xf", tmp_path / "a.tar", "-C", tmp_path], check=True)
    listed = json.loads((tmp_path / "manifest.json").read_text())[0]
    assert listed["Config"] == image["Id"].removeprefix("sha256:") + ".json"
    index = json.loads((tmp_path / "oci" / "index.json").read_text())
    assert index["manifests"][0]["digest"] == image["Descriptor"]["digest"]


def test_podman_runs_what_lamina_saved_and_the_reverse(
    daemon: Daemon, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    podman = shutil.which("podman")
    assert podman is not None, "podman is not installed (make setup)"
    policy = tmp_path / "policy.json"
    policy.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    # podman refuses a run root of more than 50 characters
    short = tempfile.mkdtemp(prefix="pm")
    request.addfinalizer(lambda: shutil.rmtree(short, ignore_errors=True))
    base = [podman, "--root", f"{short}/s", "--runroot", f"{short}/r", "--storage-driver", "vfs"]
    daemon.docker_ok("save", "-o", tmp_path / "s.tar", "busybox")
    argv = [*base, "load", f"--signature-policy={policy}", "-i", str(tmp_path / "s.tar")]
    load = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert load.returncode == 0, load.stderr
    run = [
        *base,
        "--runtime",
        "runc",
        "--cgroup-manager",
        "cgroupfs",
        "run",
        "--rm",
        "--network",
        "none",
        "--cgroups",
        "disabled",
    ]
    ran = subprocess.run([*run, "busybox", "echo", "from podman"], capture_output=True, text=True, check=False)
    if ran.returncode == 0:
        assert ran.stdout == "from podman\n"
    else:
        print(f"podman loads the image; it cannot run containers on this host: {ran.stderr[-300:]}")
        assert "busybox" in subprocess.run([*base, "images"], capture_output=True, text=True, check=True).stdout
    for form in ("docker-archive", "oci-archive"):
        archive = tmp_path / f"{form}.tar"
        subprocess.run([*base, "save", "--format", form, "-o", archive, "busybox"], check=True, capture_output=True)
        loaded = daemon.docker_ok("load", "-i", archive)
        name = loaded.split()[-1]
        assert daemon.docker_ok("run", "--rm", name, "echo", form) == form
    subprocess.run([*base, "rmi", "-a", "-f"], check=False, capture_output=True)


def test_removal_untags_first_and_deletes_with_the_last_name(daemon: Daemon) -> None:
    daemon.docker_ok("tag", "busybox", "alias:1")
    assert daemon.docker_ok("rmi", "alias:1") == "Untagged: alias:1"
    container = daemon.docker_ok("create", "busybox", "true")
    result = daemon.docker("rmi", "busybox")
    assert result.code == 1
    assert "(must force) - container" in result.err
    daemon.docker_ok("rm", container)
