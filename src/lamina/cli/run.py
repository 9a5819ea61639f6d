"""``run`` and ``create``: docker's flags as the API's Config and HostConfig."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from typing import Any

from lamina.cli import streams
from lamina.cli.grammar import Parser, UsageError
from lamina.client.client import Client
from lamina.errors import LaminaError

_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

# option, field of HostConfig
_HOST_TEXT = {
    "network": "NetworkMode",
    "ipc": "IpcMode",
    "pid": "PidMode",
    "uts": "UTSMode",
    "userns": "UsernsMode",
    "cgroupns": "CgroupnsMode",
    "cgroup-parent": "CgroupParent",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "volume-driver": "VolumeDriver",
    "runtime": "Runtime",
    "isolation": "Isolation",
}
_HOST_SIZE = {
    "memory": "Memory",
    "memory-swap": "MemorySwap",
    "memory-reservation": "MemoryReservation",
    "shm-size": "ShmSize",
}
_HOST_NUMBER = {
    "cpu-shares": "CpuShares",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "pids-limit": "PidsLimit",
    "oom-score-adj": "OomScoreAdj",
    "blkio-weight": "BlkioWeight",
    "memory-swappiness": "MemorySwappiness",
}
_HOST_FLAG = {
    "privileged": "Privileged",
    "read-only": "ReadonlyRootfs",
    "init": "Init",
    "rm": "AutoRemove",
    "publish-all": "PublishAllPorts",
    "oom-kill-disable": "OomKillDisable",
}
_HOST_LIST = {
    "volume": "Binds",
    "cap-add": "CapAdd",
    "cap-drop": "CapDrop",
    "dns": "Dns",
    "dns-search": "DnsSearch",
    "dns-option": "DnsOptions",
    "add-host": "ExtraHosts",
    "group-add": "GroupAdd",
    "security-opt": "SecurityOpt",
    "volumes-from": "VolumesFrom",
    "link": "Links",
    "device-cgroup-rule": "DeviceCgroupRules",
}
_SHORT = {
    "memory": "-m",
    "cpu-shares": "-c",
    "publish-all": "-P",
    "volume": "-v",
    "hostname": "-h",
    "user": "-u",
    "workdir": "-w",
}


def _parser(command: str) -> Parser:
    what = "Create and run a new container from an image" if command == "run" else "Create a new container"
    parser = Parser(command, "[OPTIONS] IMAGE [COMMAND] [ARG...]", what)
    for name in (*_HOST_TEXT, *_HOST_SIZE, *_HOST_NUMBER, "hostname", "domainname", "user", "workdir", "entrypoint", "name",
                 "cidfile", "stop-signal", "stop-timeout", "cpus", "restart", "log-driver", "mac-address", "ip",
                 "platform", "pull"):  # fmt: skip
        parser.value(*([_SHORT[name]] if name in _SHORT else []), f"--{name}")
    parser.value("--net", help=argparse.SUPPRESS)
    for name in _HOST_FLAG:
        parser.flag(*([_SHORT[name]] if name in _SHORT else []), f"--{name}")
    for name in (*_HOST_LIST, "mount", "tmpfs", "env-file", "label-file", "expose", "ulimit", "device", "sysctl", "log-opt",
                 "storage-opt", "annotation", "network-alias"):  # fmt: skip
        parser.values(*([_SHORT[name]] if name in _SHORT else []), f"--{name}")
    parser.values("-e", "--env")
    parser.values("-l", "--label")
    parser.values("-p", "--publish")
    parser.values("-a", "--attach")
    parser.flag("-i", "--interactive")
    parser.flag("-t", "--tty")
    parser.flag("-q", "--quiet")
    parser.flag("--no-healthcheck")
    if command == "run":
        parser.flag("-d", "--detach")
        parser.value("--detach-keys")
        parser.value("--sig-proxy", default="true")
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def run(client: Client, argv: list[str]) -> int:
    """``lamina run``."""
    options = _parser("run").parse(argv)
    if options.detach and options.attach:
        raise UsageError("Conflicting options: -a and -d")
    attached = (
        [] if options.detach else options.attach or ["stdout", "stderr", *(["stdin"] if options.interactive else [])]
    )
    body = _body(options, [a.lower() for a in attached])
    if options.tty and options.interactive and not options.detach and not sys.stdin.isatty():
        raise UsageError("the input device is not a TTY")
    container_id = _create(client, options, body)
    if options.detach:
        client.request("POST", f"/containers/{container_id}/start").read()
        print(container_id)
        return 0
    return _run_attached(client, container_id, options, [a.lower() for a in attached])


def create(client: Client, argv: list[str]) -> int:
    """``lamina create``."""
    options = _parser("create").parse(argv)
    attached = options.attach or ["stdout", "stderr", *(["stdin"] if options.interactive else [])]
    print(_create(client, options, _body(options, [a.lower() for a in attached])))
    return 0


def _create(client: Client, options: argparse.Namespace, body: dict[str, Any]) -> str:
    if options.cidfile and os.path.exists(options.cidfile):
        raise UsageError(
            f"container ID file found, make sure the other container isn't running or delete {options.cidfile}"
        )
    answer = client.request("POST", "/containers/create", {"name": options.name}, body=body).json()
    for warning in answer.get("Warnings") or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    container_id = str(answer["Id"])
    if options.cidfile:
        with open(options.cidfile, "w", encoding="ascii") as file:
            file.write(container_id)
    return container_id


def _run_attached(client: Client, container_id: str, options: argparse.Namespace, attached: list[str]) -> int:
    query = {"stream": True, "detachKeys": options.detach_keys, **dict.fromkeys(attached, True)}
    connection, rest = client.hijack(f"/containers/{container_id}/attach", query)
    condition = "removed" if options.rm else "next-exit"
    waiting = client.request("POST", f"/containers/{container_id}/wait", {"condition": condition})
    keys = options.tty and "stdin" in attached and sys.stdin.isatty()
    proxy = not options.tty and options.sig_proxy.lower() in ("true", "1")
    with contextlib.ExitStack() as stack:
        try:
            client.request("POST", f"/containers/{container_id}/start").read()
        except LaminaError:
            connection.close()
            raise
        if options.tty:
            stack.enter_context(streams.following_size(client, container_id))()
        if keys:
            stack.enter_context(streams.raw_terminal())
        if proxy:
            stack.enter_context(streams.proxied_signals(client, container_id))
        streams.carry(connection, rest, terminal=options.tty, stdin="stdin" in attached)
        if keys and _still_runs(client, container_id):
            return 0  # detached
        return int(waiting.json()["StatusCode"])


def _still_runs(client: Client, container_id: str) -> bool:
    try:
        return bool(client.request("GET", f"/containers/{container_id}/json").json()["State"]["Running"])
    except LaminaError:
        return False


def _body(options: argparse.Namespace, attached: list[str]) -> dict[str, Any]:
    given = {key.replace("_", "-"): value for key, value in vars(options).items()}
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    body: dict[str, Any] = {
        "Image": options.image,
        "Cmd": command or None,
        "Hostname": options.hostname or "",
        "Domainname": options.domainname or "",
        "User": options.user or "",
        "WorkingDir": options.workdir or "",
        "Env": [*_file_lines(options.env_file), *(_with_own_value(e) for e in options.env)],
        "Labels": _pairs([*_file_lines(options.label_file), *options.label]),
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive and "stdin" in attached,
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "ExposedPorts": {_port(p): {} for p in options.expose},
        "HostConfig": _host_config(given),
    }
    if options.entrypoint is not None:
        body["Entrypoint"] = [options.entrypoint]
    if options.stop_signal:
        body["StopSignal"] = options.stop_signal
    if options.stop_timeout:
        body["StopTimeout"] = int(options.stop_timeout)
    if options.no_healthcheck:
        body["Healthcheck"] = {"Test": ["NONE"]}
    if options.ip or options.mac_address:
        endpoint = {"IPAMConfig": {"IPv4Address": options.ip or ""}, "MacAddress": options.mac_address or ""}
        body["NetworkingConfig"] = {"EndpointsConfig": {body["HostConfig"].get("NetworkMode", "default"): endpoint}}
    return body


def _host_config(given: dict[str, Any]) -> dict[str, Any]:
    given["network"] = given["network"] or given["net"]
    host: dict[str, Any] = {}
    for table, convert in ((_HOST_TEXT, str), (_HOST_SIZE, parse_size), (_HOST_NUMBER, int)):
        for option, field in table.items():
            if given[option] is not None:
                host[field] = convert(given[option])
    host |= {field: True for option, field in _HOST_FLAG.items() if given[option]}
    host |= {field: given[option] for option, field in _HOST_LIST.items() if given[option]}
    if given["cpus"]:
        host["NanoCpus"] = int(float(given["cpus"]) * 1e9)
    if given["restart"]:
        name, _, count = given["restart"].partition(":")
        host["RestartPolicy"] = {"Name": name, "MaximumRetryCount": int(count or 0)}
    if given["log-driver"] or given["log-opt"]:
        host["LogConfig"] = {"Type": given["log-driver"] or "", "Config": _pairs(given["log-opt"])}
    if given["publish"]:
        host["PortBindings"] = dict(_binding(text) for text in given["publish"])
    host["Tmpfs"] = {text.partition(":")[0]: text.partition(":")[2] for text in given["tmpfs"]}
    host["Sysctls"] = _pairs(given["sysctl"])
    host["Annotations"] = _pairs(given["annotation"])
    host["StorageOpt"] = _pairs(given["storage-opt"])
    host["Ulimits"] = [_ulimit(text) for text in given["ulimit"]]
    host["Devices"] = [_device(text) for text in given["device"]]
    host["Mounts"] = [parse_mount(text) for text in given["mount"]]
    host["ConsoleSize"] = list(streams.terminal_size())
    return {key: value for key, value in host.items() if value not in ({}, [])}


def parse_size(text: str) -> int:
    """``512m``, ``1g``, ``-1``. Raises UsageError."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise UsageError(f"invalid size: '{text}'")
    return int(float(match.group(1)) * _SIZES[match.group(2)])


def parse_mount(text: str) -> dict[str, Any]:
    """``type=bind,source=…,target=…,readonly``. Raises UsageError."""
    mount: dict[str, Any] = {"Type": "volume"}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if key == "type":
            mount["Type"] = value
        elif key in ("source", "src"):
            mount["Source"] = value
        elif key in ("target", "dst", "destination"):
            mount["Target"] = value
        elif key in ("readonly", "ro"):
            mount["ReadOnly"] = not equals or value.lower() in ("true", "1")
        elif key == "bind-propagation":
            mount.setdefault("BindOptions", {})["Propagation"] = value
        elif key == "volume-nocopy":
            mount.setdefault("VolumeOptions", {})["NoCopy"] = not equals or value.lower() in ("true", "1")
        elif key == "tmpfs-size":
            mount.setdefault("TmpfsOptions", {})["SizeBytes"] = parse_size(value)
        elif key == "tmpfs-mode":
            mount.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
        else:
            raise UsageError(f'invalid argument "{text}" for "--mount" flag: unknown option \'{key}\'')
    return mount


def _file_lines(paths: list[str]) -> list[str]:
    lines = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            lines += [line.strip() for line in file if line.strip() and not line.lstrip().startswith("#")]
    return [_with_own_value(line) for line in lines]


def _with_own_value(text: str) -> str:
    """``NAME`` alone stands for this command's own variable, if there is one."""
    if "=" in text or text not in os.environ:
        return text
    return f"{text}={os.environ[text]}"


def _pairs(texts: list[str]) -> dict[str, str]:
    return {text.partition("=")[0]: text.partition("=")[2] for text in texts}


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _binding(text: str) -> tuple[str, list[dict[str, str]]]:
    rest, _, protocol = text.partition("/")
    *host, container = rest.split(":")
    port = host[-1] if host else ""
    address = ":".join(host[:-1])
    return f"{container}/{protocol or 'tcp'}", [{"HostIp": address, "HostPort": port}]


def _ulimit(text: str) -> dict[str, Any]:
    match = re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", text)
    if not match:
        raise UsageError(f"invalid ulimit argument: {text}")
    soft = int(match.group(2))
    return {"Name": match.group(1), "Soft": soft, "Hard": int(match.group(3)) if match.group(3) else soft}


def _device(text: str) -> dict[str, str]:
    parts = text.split(":")
    inside = parts[1] if len(parts) > 1 and parts[1].startswith("/") else parts[0]
    access = parts[-1] if len(parts) > 1 and not parts[-1].startswith("/") else "rwm"
    return {"PathOnHost": parts[0], "PathInContainer": inside, "CgroupPermissions": access}


COMMANDS = {"run": run, "create": create}
