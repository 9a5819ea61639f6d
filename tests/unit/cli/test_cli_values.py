"""The values of ``run``'s flags, and the body that they make; expectations were taken from docker 28.2.2."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lamina.cli import networking, ports, values
from lamina.cli.container_config import container_body
from lamina.cli.grammar import CommandFailed
from lamina.cli.mounts import binds_and_volumes, parse_mount
from lamina.cli.options import parse_options

HERE = os.getcwd()


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (values.parse_size, "512m", 512 << 20),
        (values.parse_size, "1.5GiB", 3 << 29),
        (values.parse_size, "-1", -1),
        (values.nano_cpus, "1.5", 1_500_000_000),
        (values.nano_cpus, "1/4", 250_000_000),
        (values.nanoseconds, "1m30s", 90 * 10**9),
        (values.nanoseconds, "500ms", 5 * 10**8),
        (values.stream, "STDIN", "stdin"),
        (values.extra_host, "h:1.2.3.4", "h:1.2.3.4"),
        (values.extra_host, "h=[::1]", "h:::1"),
        (values.extra_host, "h:host-gateway", "h:host-gateway"),
        (values.ulimit, "nofile=5:10", {"Name": "nofile", "Soft": 5, "Hard": 10}),
        (values.ulimit, "nproc=7", {"Name": "nproc", "Soft": 7, "Hard": 7}),
        (values.device, "/dev/a", {"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "rwm"}),
        (values.device, "/dev/a:r", {"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "r"}),
        (values.device, "/dev/a:/b:rw", {"PathOnHost": "/dev/a", "PathInContainer": "/b", "CgroupPermissions": "rw"}),
        (values.device_weight, "/dev/sda:500", {"Path": "/dev/sda", "Weight": 500}),
        (values.device_bytes, "/dev/sda:1mb", {"Path": "/dev/sda", "Rate": 1 << 20}),
        (values.restart_policy, "on-failure:3", {"Name": "on-failure", "MaximumRetryCount": 3}),
        (ports.exposed, "80", ["80/tcp"]),
        (ports.exposed, "80-82/udp", ["80/udp", "81/udp", "82/udp"]),
        (ports.published, "80", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        (ports.published, "8080:80/udp", {"80/udp": [{"HostIp": "", "HostPort": "8080"}]}),
        (ports.published, "127.0.0.1:8080:80", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
        (ports.published, "127.0.0.1::80", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        (ports.published, "[::1]:8080:80", {"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}),
        (ports.published, "8000-8010:80", {"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}),
        (
            ports.published,
            "8000-8001:80-81",
            {
                "80/tcp": [{"HostIp": "", "HostPort": "8000"}],
                "81/tcp": [{"HostIp": "", "HostPort": "8001"}],
            },
        ),
        (networking.network, "host", ("host", {})),
        (networking.network, "name=n,alias=a,ip=1.2.3.4", ("n", {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "1.2.3.4"}})),
        (parse_mount, "type=bind,source=.,target=/x", {"Type": "bind", "Source": HERE, "Target": "/x"}),
        (parse_mount, "type=bind,src=./t,dst=/x,ro", {"Type": "bind", "Source": f"{HERE}/t", "Target": "/x", "ReadOnly": True}),
        (parse_mount, "source=v,target=/x,readonly=0", {"Type": "volume", "Source": "v", "Target": "/x", "ReadOnly": False}),
        (parse_mount, '"type=bind","src=/a,b","target=/x"', {"Type": "bind", "Source": "/a,b", "Target": "/x"}),
        (
            parse_mount,
            "type=bind,src=/a,target=/x,bind-recursive=disabled,bind-propagation=rslave,consistency=cached",
            {
                "Type": "bind",
                "Source": "/a",
                "Target": "/x",
                "BindOptions": {"NonRecursive": True, "Propagation": "rslave"},
                "Consistency": "cached",
            },
        ),
        (
            parse_mount,
            "target=/x,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=o=c=d,volume-subpath=s",
            {
                "Type": "volume",
                "Target": "/x",
                "VolumeOptions": {
                    "NoCopy": True,
                    "Labels": {"a": "b"},
                    "DriverConfig": {"Name": "local", "Options": {"o": "c=d"}},
                    "Subpath": "s",
                },
            },
        ),
        (
            parse_mount,
            "type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=1770",
            {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}},
        ),
        (binds_and_volumes, ["./t:/x", ".:/y:ro", "/a:/b", "v:/c", "/anonymous"], (
            [f"{HERE}/t:/x", f"{HERE}:/y:ro", "/a:/b", "v:/c"], {"/anonymous": {}},
        )),
    ],
)  # fmt: skip
def test_a_flag_s_text_is_read(read: Callable[[Any], Any], text: Any, expected: Any) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (values.parse_size, "x", "invalid size: 'x'"),
        (values.nano_cpus, "foo", "failed to parse foo as a rational number"),
        (values.nanoseconds, "x", 'time: invalid duration "x"'),
        (values.stream, "bogus", "valid streams are STDIN, STDOUT and STDERR"),
        (values.ip_address, "bogus", "IP address is not correctly formatted: bogus"),
        (values.extra_host, "foo", 'bad format for add-host: "foo"'),
        (values.extra_host, "foo:bar", 'invalid IP address in add-host: "bar"'),
        (values.ulimit, "foo", "invalid ulimit argument: foo"),
        (values.ulimit, "foo=1", "invalid ulimit type: foo"),
        (values.ulimit, "nofile=10:5", "ulimit soft limit must be less than or equal to hard limit: 10 > 5"),
        (values.sysctl, "kernel.foo=1", "sysctl 'kernel.foo=1' is not allowed"),
        (values.device, "a:b:c:d", "bad format for path: a:b:c:d"),
        (values.device_weight, "foo:5", "bad format for device path: foo:5"),
        (
            values.restart_policy,
            "on-failure:x",
            "invalid restart policy format: maximum retry count must be an integer",
        ),
        (ports.published, "foo", "invalid containerPort: foo"),
        (ports.published, "x:1", "invalid hostPort: x"),
        (ports.published, "1-2:3-5", "invalid ranges specified for container and host Ports: 3-5 and 1-2"),
        (ports.published, "999.1.1.1:1:1", "invalid IP address: 999.1.1.1"),
        (ports.published, "80/foo", "invalid proto: foo"),
        (ports.exposed, "80-70", "invalid range specified for port: 80-70"),
        (parse_mount, "foo", "invalid field 'foo' must be a key=value pair"),
        (parse_mount, "type=bind,foo=bar,target=/x", "unexpected key 'foo' in 'foo=bar'"),
        (parse_mount, "type=bind,readonly=bogus", "invalid value for readonly: bogus"),
        (parse_mount, "type=tmpfs,target=/x,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
        (parse_mount, "type=bind,source=/x", "target is required"),
        (
            parse_mount,
            "type=bind,source=/x,target=/y,volume-nocopy",
            "cannot mix 'volume-*' options with mount type 'bind'",
        ),
    ],
)
def test_what_a_flag_cannot_be_is_told_in_docker_s_words(read: Callable[[str], Any], text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        read(text)
    assert message in str(caught.value)


def _body(*argv: str) -> dict[str, Any]:
    return container_body(parse_options("run", [*argv, "image"]), "unix:///s.sock")


@pytest.mark.parametrize(
    ("argv", "path", "expected"),
    [
        ([], "HostConfig", {}),
        (["--entrypoint", ""], "Entrypoint", [""]),
        (["--expose", "80-81", "-p", "90:91"], "ExposedPorts", {"80/tcp": {}, "81/tcp": {}, "91/tcp": {}}),
        (["-P"], "HostConfig.PublishAllPorts", True),
        (["--pids-limit", "0"], "HostConfig.PidsLimit", 0),
        (["--stop-timeout", "0"], "StopTimeout", 0),
        (["--health-cmd", "x", "--health-interval", "2s", "--health-retries", "3"], "Healthcheck",
         {"Test": ["CMD-SHELL", "x"], "Interval": 2 * 10**9, "Retries": 3}),
        (["--no-healthcheck"], "Healthcheck", {"Test": ["NONE"]}),
        (["--network", "n", "--network-alias", "a", "--ip6", "::1", "--link-local-ip", "169.254.0.1"],
         "NetworkingConfig.EndpointsConfig.n",
         {"Aliases": ["a"], "IPAMConfig": {"IPv6Address": "::1", "LinkLocalIPs": ["169.254.0.1"]}}),
        (["--gpus", "all"], "HostConfig.DeviceRequests",
         [{"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}]),
        (["--device-read-iops", "/dev/sda:5"], "HostConfig.BlkioDeviceReadIOps", [{"Path": "/dev/sda", "Rate": 5}]),
        (["--security-opt", "systempaths=unconfined"], "HostConfig.MaskedPaths", []),
        (["--use-api-socket"], "HostConfig.Mounts",
         [{"Type": "bind", "Source": "/s.sock", "Target": "/var/run/docker.sock", "BindOptions": {}}]),
        (["-v", "/anonymous"], "Volumes", {"/anonymous": {}}),
        (["-a", "STDOUT"], "AttachStderr", False),
        (["-i", "-d"], "AttachStdin", False),
    ],
)  # fmt: skip
def test_flags_go_where_the_api_has_them(argv: list[str], path: str, expected: Any) -> None:
    found: Any = _body(*argv)
    for name in path.split("."):
        found = found[name]
    assert found == expected


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--restart", "always", "--rm"], "conflicting options: cannot specify both --restart and --rm"),
        (["--health-cmd", "x", "--no-healthcheck"], "--no-healthcheck conflicts with --health-* options"),
        (["--log-driver", "none", "--log-opt", "a=b"], "invalid logging opts for driver none"),
        (["--network-alias", "a"], "network-scoped aliases are only supported for user-defined networks"),
        (["--security-opt", "seccomp=/nosuch"], "opening seccomp profile (/nosuch) failed: open /nosuch: no such file"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(argv: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        _body(*argv)
    assert message in str(caught.value)


def test_a_seccomp_profile_goes_as_its_text(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text('{\n  "defaultAction": "SCMP_ACT_ALLOW"\n}\n')
    body = _body("--security-opt", f"seccomp={profile}")
    assert body["HostConfig"]["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']


def test_files_of_variables_keep_values_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN", "mine")
    monkeypatch.delenv("UNSET", raising=False)
    file = tmp_path / "env"
    file.write_bytes("\ufeffA=b \r\n# c\n\n  C= d\nOWN\nUNSET\nE\n".encode())
    assert values.file_lines(str(file), takes_own_values=True) == ["A=b ", "C= d", "OWN=mine"]
    assert values.file_lines(str(file), takes_own_values=False) == ["A=b ", "C= d", "OWN", "UNSET", "E"]
    file.write_text("export E=f\n")
    with pytest.raises(ValueError, match="variable 'export E' contains whitespaces"):
        values.file_lines(str(file), takes_own_values=True)


def test_a_body_is_json(tmp_path: Path) -> None:
    json.dumps(_body("--mount", "type=bind,source=/a,target=/b", "-p", "80", "--ulimit", "nofile=1"))


def test_an_unknown_flag_of_run_ends_with_125() -> None:
    with pytest.raises(CommandFailed) as caught:
        parse_options("run", ["--bogus", "image"])
    assert caught.value.code == 125
