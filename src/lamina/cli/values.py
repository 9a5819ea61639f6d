"""The texts of ``run``'s flags as values of the API. Each raises ValueError, in docker's words, for what it cannot read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DURATION_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
_SYSCTLS = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
    "kernel.shm_rmid_forced".split()
)
_BLANKS = " \t"


def parse_size(text: str) -> int:
    """``512m``, ``1.5g``, ``-1``: bytes."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?) ?([bkmgtp]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(match.group(1)) * _UNITS[match.group(2)])


def nano_cpus(text: str) -> int:
    """``1.5``: billionths of a processor."""
    try:
        numerator, _, denominator = text.partition("/")
        return int(float(numerator) * 1e9 / float(denominator or 1))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"failed to parse {text} as a rational number") from None


def unsigned_16(text: str) -> int:
    """An unsigned number of 16 bits, as Go's strconv.ParseUint reads it."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 0xFFFF:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def nanoseconds(text: str) -> int:
    """Go's duration: ``1m30s``, ``500ms``, ``0``."""
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text.lstrip("+-")):
        raise ValueError(f'time: invalid duration "{text}"')
    total = sum(int(float(number) * _DURATION_NS[unit]) for number, unit in parts)
    return -total if text.startswith("-") else total


def stream(text: str) -> str:
    """A stream to attach to."""
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def ip_address(text: str) -> str:
    """An IP address of either family."""
    from ipaddress import ip_address as parse

    try:
        return str(parse(text.strip()))
    except ValueError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None


def extra_host(text: str) -> str:
    """``host:ip`` or ``host=ip``, the address perhaps in brackets, or ``host-gateway``."""
    match = re.fullmatch(r"([^:=]+)[:=](.+)", text)
    if match is None:
        raise ValueError(f'bad format for add-host: "{text}"')
    name, address = match.group(1), match.group(2)
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway":
        try:
            ip_address(address)
        except ValueError:
            raise ValueError(f'invalid IP address in add-host: "{address}"') from None
    return f"{name}:{address}"


def ulimit(text: str) -> dict[str, Any]:
    """``nofile=soft[:hard]``."""
    match = re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", text)
    if not match:
        raise ValueError(f"invalid ulimit argument: {text}")
    name, soft = match.group(1), int(match.group(2))
    hard = soft if match.group(3) is None else int(match.group(3))
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    if hard != -1 and (soft > hard or soft == -1):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Soft": soft, "Hard": hard}


def sysctl(text: str) -> str:
    """``name=value`` of a parameter that belongs to a namespace."""
    name, equals, _ = text.partition("=")
    if not equals or not (name in _SYSCTLS or name.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return text


def environment(text: str) -> str:
    """``NAME=value``; ``NAME`` alone stands for this command's own variable, if there is one."""
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    return f"{text}={os.environ[text]}" if not equals and text in os.environ else text


def label(text: str) -> str:
    """``name=value`` or ``name``."""
    if not text.partition("=")[0]:
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def link(text: str) -> str:
    """``container`` or ``container:alias``."""
    if not text or text.count(":") > 1:
        raise ValueError(f"bad format for links: {text}")
    return text


def device_rule(text: str) -> str:
    """``c 1:3 rwm``."""
    if not re.fullmatch(r"[acb] (\d+|\*):(\d+|\*) [rwm]{1,3}", text):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def device_weight(text: str) -> dict[str, Any]:
    """``/dev/sda:500``."""
    path, number = _device_and_rest(text)
    if not number.isdecimal() or (int(number) != 0 and not 10 <= int(number) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(number)}


def device_bytes(text: str) -> dict[str, Any]:
    """``/dev/sda:1mb``: bytes a second."""
    path, number = _device_and_rest(text)
    try:
        rate = parse_size(number)
    except ValueError:
        rate = -1
    return _throttle(
        text,
        path,
        rate,
        "<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb",
    )


def device_operations(text: str) -> dict[str, Any]:
    """``/dev/sda:100``: operations a second."""
    path, number = _device_and_rest(text)
    return _throttle(
        text, path, int(number) if number.isdecimal() else -1, "<number>. Number must be a positive integer"
    )


def _device_and_rest(text: str) -> tuple[str, str]:
    path, _, rest = text.partition(":")
    if not path or not rest:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, rest


def _throttle(text: str, path: str, rate: int, form: str) -> dict[str, Any]:
    if rate < 0:
        raise ValueError(f"invalid rate for device: {text}. The correct format is <device-path>:{form}")
    return {"Path": path, "Rate": rate}


def device(text: str) -> dict[str, str]:
    """``/dev/a[:/dev/b][:rwm]``."""
    first, *others = text.split(":")
    inside, access = first, "rwm"
    if len(others) == 1 and re.fullmatch("[rwm]{1,3}", others[0]):
        access = others[0]
    elif others:
        inside = others[0]
        access = others[1] if len(others) > 1 else access
    if not first or len(others) > 2 or not re.fullmatch("[rwm]{1,3}", access):
        raise ValueError(f"bad format for path: {text}")
    if not inside.startswith("/"):
        raise ValueError(f"{inside} is not an absolute path")
    return {"PathOnHost": first, "PathInContainer": inside, "CgroupPermissions": access}


def gpu_request(text: str) -> dict[str, Any]:
    """``all``, a number, or ``count=2,driver=nvidia,capabilities=…,device=…``."""
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    for field in csv_fields(text):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", key
        if key == "count":
            if value != "all" and not value.isdecimal():
                raise ValueError(f'invalid count ({value}): value must be either "all" or an integer: invalid syntax')
            request["Count"] = -1 if value == "all" else int(value)
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "driver":
            request["Driver"] = value
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            request["Options"] = pairs(value.split(","))
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    if request["Count"] == 0 and request["DeviceIDs"] is None:
        request["Count"] = 1
    return request


def restart_policy(text: str) -> dict[str, Any]:
    """``always``, ``on-failure:3``."""
    name, _, count = text.partition(":")
    if not name and count:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    if not re.fullmatch(r"-?\d*", count):
        raise ValueError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def csv_fields(text: str) -> list[str]:
    """The fields of a line of comma-separated values, which may be quoted."""
    import csv

    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"parse error on line 1: {error}") from None


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """``name=value`` texts as a mapping; the last of a name counts."""
    return {text.partition("=")[0]: text.partition("=")[2] for text in texts}


def file_lines(path: str, *, takes_own_values: bool) -> list[str]:
    """The lines of an ``--env-file`` or ``--label-file``: ``NAME=value``, the value as it stands.

    With *takes_own_values* a ``NAME`` alone stands for this command's own variable. Raises OSError or ValueError.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = [line.rstrip("\n").rstrip("\r").lstrip(_BLANKS) for line in file]
    found = []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        name, equals, _ = line.partition("=")
        if not name:
            raise ValueError(f"no variable name on line '{line}'")
        if any(blank in name for blank in _BLANKS):
            raise ValueError(f"variable '{name}' contains whitespaces")
        if equals or not takes_own_values:
            found.append(line)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    return found
