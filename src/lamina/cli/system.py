"""Commands about the daemon and the host."""

from __future__ import annotations

import json
import time
from importlib.metadata import version as package_version
from typing import Any

from lamina.api.versions import CURRENT
from lamina.cli.grammar import Parser
from lamina.cli.output import human_size
from lamina.client.client import Client, filters_json


def version(client: Client, argv: list[str]) -> int:
    """``lamina version``."""
    parser = Parser("version", "[OPTIONS]", "Show the lamina version information")
    parser.value("-f", "--format")
    options = parser.parse(argv)
    own: dict[str, Any] = {"Version": package_version("lamina"), "ApiVersion": CURRENT, "Os": "linux"}
    facts = {"Client": own, "Server": client.request("GET", "/version").json()}
    if options.format:
        _render(facts, options.format)
        return 0
    for side, values in facts.items():
        print(f"{side}:")
        for key in ("Version", "ApiVersion", "MinAPIVersion", "Os", "Arch", "KernelVersion"):
            if values.get(key):
                print(f" {key + ':':<18}{values[key]}")
        for component in values.get("Components") or []:
            print(f" {component['Name'] + ':':<18}{component['Version']}")
    return 0


def info(client: Client, argv: list[str]) -> int:
    """``lamina info``."""
    parser = Parser("info", "[OPTIONS]", "Display system-wide information")
    parser.value("-f", "--format")
    options = parser.parse(argv)
    facts = client.request("GET", "/info").json()
    if options.format:
        _render(facts, options.format)
        return 0
    rows = (
        ("Containers", facts["Containers"]),
        (" Running", facts["ContainersRunning"]),
        (" Paused", facts["ContainersPaused"]),
        (" Stopped", facts["ContainersStopped"]),
        ("Images", facts["Images"]),
        ("Server Version", facts["ServerVersion"]),
        ("Storage Driver", facts["Driver"]),
        ("Logging Driver", facts["LoggingDriver"]),
        ("Cgroup Driver", facts["CgroupDriver"]),
        ("Cgroup Version", facts["CgroupVersion"]),
        ("Default Runtime", facts["DefaultRuntime"]),
        ("Kernel Version", facts["KernelVersion"]),
        ("Operating System", facts["OperatingSystem"]),
        ("Architecture", facts["Architecture"]),
        ("CPUs", facts["NCPU"]),
        ("Total Memory", human_size(facts["MemTotal"])),
        ("Root Dir", facts["DockerRootDir"]),
    )
    for name, value in rows:
        print(f"{name}: {value}")
    for warning in facts.get("Warnings") or []:
        print(warning)
    return 0


def events(client: Client, argv: list[str]) -> int:
    """``lamina events``."""
    parser = Parser("events", "[OPTIONS]", "Get real time events from the server")
    parser.value("--since")
    parser.value("--until")
    parser.value("--format")
    parser.values("-f", "--filter")
    options = parser.parse(argv)
    query = {"since": options.since, "until": options.until, "filters": filters_json(options.filter)}
    for line in client.request("GET", "/events", query).lines():
        event = json.loads(line)
        if options.format:
            _render(event, options.format)
            continue
        seconds, nanoseconds = divmod(event["timeNano"], 1_000_000_000)
        stamp = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds)) + f".{nanoseconds:09d}" + time.strftime("%z")
        )
        attributes = ", ".join(f"{k}={v}" for k, v in sorted(event["Actor"]["Attributes"].items()))
        print(f"{stamp} {event['Type']} {event['Action']} {event['Actor']['ID']} ({attributes})", flush=True)
    return 0


def doctor(client: Client, argv: list[str]) -> int:
    """``lamina doctor``: asks this host, not the daemon."""
    parser = Parser("doctor", "[OPTIONS]", "Tell what this host lacks to run lamina")
    parser.value("--root", default="/var/lib/lamina")
    options = parser.parse(argv)
    from pathlib import Path

    from lamina.engine.doctor import checks

    code = 0
    for check in checks(Path(options.root)):
        mark = "ok" if check.ok else ("MISSING" if check.required else "warning")
        print(f"{mark:8} {check.name:12} {check.detail}" + ("" if check.ok else f": {check.remedy}"))
        code = code if check.ok or not check.required else 1
    return code


def _render(value: Any, form: str) -> None:
    if form == "json":
        print(json.dumps(value))
        return
    from lamina.cli.template import Template

    print(Template(form).render(value))


COMMANDS = {"version": version, "info": info, "events": events, "doctor": doctor}
