"""What a container has mounted: Binds, Mounts, VolumesFrom, by ``POST /containers/create``."""

from __future__ import annotations

import subprocess
from typing import Any

import docker
import pytest

from compat.matrix.lab import Cases, Lab
from lamina.linux import mount

CASES = Cases()


def _one(target: str = "/x", /, **fields: Any) -> dict[str, Any]:
    return {"Mounts": [{"Target": target, **fields}]}


def _options_of(mounts: str, target: str = "/x") -> str:
    """The options of a line of /proc/self/mountinfo, with the optional fields behind them."""
    (line,) = (line for line in mounts.splitlines() if line.split()[4] == target)
    return " ".join(line.split(" - ")[0].split()[5:])


_INFO = "cat /proc/self/mountinfo"


@CASES.covers("HostConfig: Binds")
def binds(lab: Lab) -> None:
    """A source that is not there becomes a directory; a name is a volume's."""
    (lab.tmp_path / "file").write_text("text")
    volume = lab.name()
    lab.volumes.append(volume)
    texts = [f"{lab.tmp_path}/file:/a:ro", f"{lab.tmp_path}/new:/b", f"{volume}:/c:nocopy"]
    told = lab.run("cat /a; echo; (echo x > /a) 2>/dev/null || echo no; echo y > /b/f; ls -d /c", host={"binds": texts})
    assert told.splitlines() == ["text", "no", "/c"]
    assert (lab.tmp_path / "new" / "f").read_text() == "y\n"
    points = {p["Destination"]: p for p in lab.api.inspect_container(lab.made[-1])["Mounts"]}
    assert (points["/a"]["RW"], points["/a"]["Mode"], points["/c"]["Name"]) == (False, "ro", volume)
    lab.refused([400], "invalid mode: bogus", host={"Binds": ["/tmp:/x:bogus"]})
    lab.refused([400], "duplicate mount point", host={"Binds": ["/tmp:/x", "/var:/x"]})


@CASES.covers("HostConfig: Mounts\nMount: Type Source Target ReadOnly Consistency")
def a_bind(lab: Lab) -> None:
    """How consistent a bind is, is asked of other systems than Linux."""
    (lab.tmp_path / "f").write_text("text")
    fields: dict[str, Any] = {"Type": "bind", "Source": str(lab.tmp_path), "Consistency": "cached"}
    assert lab.run("cat /x/f; touch /x/g", host=_one(**fields)) == "text"
    assert (lab.tmp_path / "g").exists()
    lab.run("touch /x/h", code=1, host=_one(**fields, ReadOnly=True))
    (point,) = lab.api.inspect_container(lab.made[-1])["Mounts"]
    assert (point["Type"], point["Source"], point["Destination"], point["RW"]) == (
        "bind",
        str(lab.tmp_path),
        "/x",
        False,
    )


@CASES.covers("Mount: Type Source Target")
def mounts_that_mean_nothing(lab: Lab) -> None:
    for fields, words in (
        ({"Type": "bogus"}, ["bogus", "unknown"]),
        ({"Type": "bind", "Source": ""}, ["Source must not be empty"]),
        ({"Type": "bind", "Source": "rel"}, ["must be absolute"]),
        ({"Type": "tmpfs", "Source": "/tmp"}, ["Source must not be specified"]),
        ({"Type": "tmpfs", "Target": ""}, ["Target must not be empty"]),
        ({"Type": "tmpfs", "Target": "/"}, ["destination can't be '/'"]),
        ({"Type": "bind", "Source": "/nosuch/here"}, ["bind source path does not exist: /nosuch/here"]),
    ):
        lab.refused([400], *words, host=_one(**fields))
    for kind in ("npipe", "cluster"):
        lab.refused([400, 501], kind, host=_one(Type=kind, Source="x"))


@CASES.covers("Mount: BindOptions\nMount.BindOptions: Propagation")
def propagation(lab: Lab) -> None:
    """The host's directory has to be shared for that; here it is made so, on a mount of the test's own."""
    mount.mount("tmpfs", str(lab.tmp_path), "tmpfs")
    try:
        subprocess.run(["mount", "--make-shared", str(lab.tmp_path)], check=True)
        for asked, shown in (("rshared", "shared:"), ("rslave", "master:"), ("rprivate", "")):
            fields: dict[str, Any] = {
                "Type": "bind",
                "Source": str(lab.tmp_path),
                "BindOptions": {"Propagation": asked},
            }
            options = _options_of(lab.run(_INFO, host=_one(**fields)))
            assert shown in options
            assert shown or ("shared" not in options and "master" not in options)
            assert lab.api.inspect_container(lab.made[-1])["Mounts"][0]["Propagation"] == asked
    finally:
        mount.unmount(str(lab.tmp_path))
    bogus = {"Type": "bind", "Source": "/tmp", "BindOptions": {"Propagation": "bogus"}}
    lab.refused([400], "propagation", "bogus", host=_one(**bogus))


@CASES.covers("Mount.BindOptions: CreateMountpoint")
def a_bind_that_is_made(lab: Lab) -> None:
    fields: dict[str, Any] = {"Type": "bind", "Source": f"{lab.tmp_path}/a/b"}
    lab.refused([400], "bind source path does not exist", host=_one(**fields))
    lab.run("touch /x/f", host=_one(**fields, BindOptions={"CreateMountpoint": True}))
    assert (lab.tmp_path / "a" / "b" / "f").exists()


@CASES.covers("Mount.BindOptions: NonRecursive ReadOnlyNonRecursive ReadOnlyForceRecursive\nMount: ReadOnly")
def what_is_mounted_below_a_bind(lab: Lab) -> None:
    below = lab.tmp_path / "below"
    below.mkdir()
    mount.mount("tmpfs", str(below), "tmpfs")
    try:
        for options, expected in (
            ({}, "no"),
            ({"ReadOnlyNonRecursive": True}, "yes"),
            ({"ReadOnlyForceRecursive": True, "Propagation": "rprivate"}, "no"),
        ):
            fields: dict[str, Any] = {
                "Type": "bind",
                "Source": str(lab.tmp_path),
                "ReadOnly": True,
                "BindOptions": options,
            }
            told = lab.run(
                "touch /x/f 2>/dev/null; touch /x/below/f 2>/dev/null && echo yes || echo no", host=_one(**fields)
            )
            assert told == expected, options
            assert not (lab.tmp_path / "f").exists()
        fields = {"Type": "bind", "Source": str(lab.tmp_path), "BindOptions": {"NonRecursive": True}}
        assert lab.run("grep -c ' /x' /proc/mounts", host=_one(**fields)) == "1"
    finally:
        mount.unmount(str(below))


@CASES.covers("Mount: VolumeOptions\nMount.VolumeOptions: Labels NoCopy Subpath")
def a_volume(lab: Lab) -> None:
    name = lab.name()
    lab.volumes.append(name)
    options: dict[str, Any] = {"Labels": {"a": "b"}, "NoCopy": True}
    told = lab.run(
        "ls /etc; mkdir /etc/part; echo deep > /etc/part/f",
        host=_one("/etc", Type="volume", Source=name, VolumeOptions=options),
    )
    assert "passwd" not in told
    assert lab.api.inspect_volume(name)["Labels"] == {"a": "b"}
    options = {"Subpath": "part"}
    assert lab.run("cat /x/f", host=_one(Type="volume", Source=name, VolumeOptions=options)) == "deep"
    for path in ("../part", "/part"):
        lab.refused([400], "subpath", host=_one(Type="volume", Source=name, VolumeOptions={"Subpath": path}))
    lab.refused(
        [400, 404, 500],
        "nosuch",
        host=_one(Type="volume", Source=name, VolumeOptions={"Subpath": "nosuch"}),
        starts=True,
    )
    full = lab.name()
    lab.volumes.append(full)
    assert "passwd" in lab.run("ls /etc", host=_one("/etc", Type="volume", Source=full))


@CASES.covers("Mount.VolumeOptions: DriverConfig\nMount.VolumeOptions.DriverConfig: Name Options")
def a_volume_of_a_driver(lab: Lab) -> None:
    lab.refused(
        [400], "bogus", "not found", host=_one(Type="volume", VolumeOptions={"DriverConfig": {"Name": "bogus"}})
    )
    driver = {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}}
    told = lab.run("grep ' /x tmpfs' /proc/mounts", host=_one(Type="volume", VolumeOptions={"DriverConfig": driver}))
    assert "size=1024k" in told
    lab.run("touch /x/f", host=_one(Type="volume", VolumeOptions={"DriverConfig": {"Name": "local"}}))


@CASES.covers("Mount: TmpfsOptions\nMount.TmpfsOptions: SizeBytes Mode Options")
def a_tmpfs(lab: Lab) -> None:
    options = {"SizeBytes": 1 << 20, "Mode": 0o1750, "Options": [["nr_inodes", "99"], ["exec"]]}
    told = lab.run("stat -c %a /x; grep ' /x ' /proc/mounts", host=_one(Type="tmpfs", TmpfsOptions=options))
    assert told.splitlines()[0] == "1750"
    assert "size=1024k" in told
    assert "nr_inodes=99" in told
    assert "noexec" not in told
    lab.run("touch /x/f", code=1, host=_one(Type="tmpfs", ReadOnly=True))
    lab.refused([400], "tmpfs option", "bogus", host=_one(Type="tmpfs", TmpfsOptions={"Options": [["bogus"]]}))
    lab.refused([400], "size", host=_one(Type="tmpfs", TmpfsOptions={"SizeBytes": -1}))


@CASES.covers("Mount: ImageOptions\nMount.ImageOptions: Subpath")
def an_image(lab: Lab) -> None:
    """Its files, or those of a part of it, which are read-only."""
    fields: dict[str, Any] = {"Type": "image", "Source": "busybox"}
    script = "grep -c ^bob: /x/{}passwd; touch /x/f 2>/dev/null || echo no"
    assert lab.run(script.format("etc/"), host=_one(**fields)) == "1\nno"
    assert lab.run(script.format(""), host=_one(**fields, ImageOptions={"Subpath": "etc"})) == "1\nno"
    lab.refused([400, 404], "nosuch", host=_one(Type="image", Source="nosuch"))
    lab.refused([400], "subpath", host=_one(**fields, ImageOptions={"Subpath": "../x"}))


@CASES.covers("Mount.VolumeOptions: Labels DriverConfig")
def options_in_the_wrong_form(lab: Lab) -> None:
    for options in ({"Labels": ["a"]}, {"DriverConfig": "local"}):
        lab.refused([400], host=_one(Type="volume", VolumeOptions=options))


@CASES.covers("Mount: BindOptions VolumeOptions TmpfsOptions ImageOptions")
def options_of_other_types(lab: Lab) -> None:
    for kind, name, options in (
        ("bind", "VolumeOptions", {"NoCopy": True}),
        ("bind", "TmpfsOptions", {"SizeBytes": 1 << 20}),
        ("bind", "ImageOptions", {"Subpath": "x"}),
        ("volume", "BindOptions", {"Propagation": "rslave"}),
    ):
        lab.refused([400], name, host=_one(Type=kind, Source="/tmp" if kind == "bind" else "v", **{name: options}))


@CASES.covers("Mount: BindOptions")
def empty_options_of_other_types(lab: Lab) -> None:
    """They are as wrong as others."""
    lab.refused([400], "BindOptions", host=_one(Type="volume", BindOptions={}))


@CASES.covers("HostConfig: VolumesFrom")
def volumes_of_others(lab: Lab) -> None:
    donor = lab.create("true", volumes=["/data"], host={"binds": [f"{lab.tmp_path}:/bound"]})
    lab.run("echo x > /data/f; echo y > /bound/f", host={"volumes_from": [donor]})
    assert (lab.tmp_path / "f").read_text() == "y\n"
    assert (
        lab.run("cat /data/f; touch /data/g 2>/dev/null || echo no", host={"volumes_from": [f"{donor}:ro"]}) == "x\nno"
    )
    lab.refused([400, 404], "nosuch", host={"volumes_from": ["nosuch"]})
    lab.refused([400], "invalid mode", "bogus", host={"VolumesFrom": [f"{donor}:bogus"]})


@CASES.covers("Mount: Type")
def a_volume_without_a_name_ends_with_its_container(lab: Lab) -> None:
    container = lab.create(host=_one(Type="volume"))
    (point,) = lab.api.inspect_container(container)["Mounts"]
    lab.api.remove_container(container, v=True)
    with pytest.raises(docker.errors.NotFound):
        lab.api.inspect_volume(point["Name"])
