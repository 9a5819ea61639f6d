"""``--publish`` and ``--expose`` as the API's ports. Errors are ValueErrors in docker's words."""

from __future__ import annotations

import re

from lamina.cli.values import ip_address

Bindings = dict[str, list[dict[str, str]]]
_LAST_PORT = 65535
_PROTOCOLS = ("tcp", "udp", "sctp")


def exposed(text: str) -> list[str]:
    """``80``, ``80-82/udp``: each port with its protocol."""
    ports, _, protocol = text.partition("/")
    try:
        first, last = _range(ports)
    except ValueError as error:
        raise ValueError(f"invalid range format for --expose: {text}, error: {error}") from None
    return [f"{port}/{protocol.lower() or 'tcp'}" for port in range(first, last + 1)]


def published(text: str) -> Bindings:
    """``[[address:]port:]port[/protocol]``, ports perhaps ranges of the same length: where each container port is bound."""
    fields = dict(_field(part) for part in text.split(",")) if "=" in text else None
    if fields is not None:
        address, host, container, protocol = (
            "",
            fields.get("published", ""),
            fields.get("target", ""),
            fields.get("protocol", "tcp"),
        )
    else:
        address, host, container, protocol = _parts(text)
    first, last = _checked_range(container, "containerPort")
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    inner = range(first, last + 1)
    if not host:
        return {f"{port}/{protocol}": [{"HostIp": address, "HostPort": ""}] for port in inner}
    start, end = _checked_range(host, "hostPort")
    if end - start != last - first:
        if first != last:
            raise ValueError(f"invalid ranges specified for container and host Ports: {container} and {host}")
        return {f"{first}/{protocol}": [{"HostIp": address, "HostPort": f"{start}-{end}"}]}
    return {f"{port}/{protocol}": [{"HostIp": address, "HostPort": str(start + port - first)}] for port in inner}


def _field(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key.strip().lower(), value.strip()


def _parts(text: str) -> tuple[str, str, str, str]:
    """Address, host ports, container ports, protocol."""
    match = re.fullmatch(
        r"(?:(?:\[(?P<six>[^\]]*)\]|(?P<four>[^:]*)):)??(?:(?P<host>[^:]*):)?(?P<container>[^:]*)", text
    )
    if match is None:
        raise ValueError(f"invalid IP address: {text.rsplit(':', 2)[0]}")
    container, _, protocol = match.group("container").partition("/")
    if not container:
        raise ValueError(f"no port specified: {text}<empty>")
    address = match.group("six") or match.group("four") or ""
    if address:
        try:
            ip_address(address)
        except ValueError:
            raise ValueError(f"invalid IP address: {address}") from None
    return address, match.group("host") or "", container, protocol.lower() or "tcp"


def _checked_range(text: str, name: str) -> tuple[int, int]:
    try:
        return _range(text)
    except ValueError:
        raise ValueError(f"invalid {name}: {text}") from None


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    for number in (first, last) if dash else (first,):
        if not number.isdecimal() or int(number) > _LAST_PORT:
            raise ValueError(f'strconv.ParseUint: parsing "{number}": invalid syntax')
    start, end = int(first), int(last or first)
    if start > end:
        raise ValueError(f"invalid range specified for port: {text}")
    return start, end
