"""The files by which a container knows names: /etc/hosts, /etc/hostname, /etc/resolv.conf. Pure functions, but for reading the host's."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from lamina.errors import InvalidArgument

_HOSTS = Path("/etc/hosts")
_RESOLV = Path("/etc/resolv.conf")
_RESOLVED_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")
_RESOLVED_STUB = "127.0.0.53"
_PUBLIC = ("8.8.8.8", "8.8.4.4")
_LOCAL_LINES = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


class InvalidHost(InvalidArgument):
    """An ``--add-host`` is not ``name:address``."""


def hosts(
    *,
    addresses: Sequence[str],
    hostname: str,
    domainname: str,
    extra: Sequence[str],
    gateway: str,
    own_network: bool = True,
    lines: Sequence[str] = (),
) -> str:
    """/etc/hosts: the local names, the extra ones (``name:address``, address may be ``host-gateway``), whole *lines*, the container's own.

    On the host's network the host's file takes the place of the local names. Raises InvalidHost.
    """
    written = list(_LOCAL_LINES) if own_network else _host_names()
    written += [_extra_line(text, gateway) for text in extra]
    written += lines
    if own_network:
        names = f"{hostname}.{domainname} {hostname}" if domainname else _with_short_form(hostname)
        written += [f"{address}\t{names}" for address in addresses]
    return "\n".join(written) + "\n"


def _with_short_form(hostname: str) -> str:
    """A name with a domain, and without it."""
    short, dot, _ = hostname.partition(".")
    return f"{hostname} {short}" if dot and short else hostname


def resolv_conf(
    *,
    servers: Sequence[str],
    search: Sequence[str],
    options: Sequence[str],
    own_network: bool = True,
    ndots: str | None = None,
) -> str:
    """/etc/resolv.conf: the host's, with what was asked for in place of its lines.

    A resolver on the host's loopback cannot be reached from a network of one's own: systemd's stub is replaced by the servers behind it,
    any other is left out; if none remains, public ones are used, as docker does. On the host's network its loopback is the host's.
    *ndots* is how many dots a name needs to be asked for without a search domain first, unless the options tell it.
    """
    host = _host_lines() if own_network else _parse(_RESOLV)
    found = [value for key, value in host if key == "nameserver"]
    if own_network and not servers:
        found = [s for s in found if not _is_loopback(s)] or list(_PUBLIC)
    lines = [f"nameserver {s}" for s in (servers or found)]
    searched = list(search) or [word for key, value in host if key in ("search", "domain") for word in value.split()]
    if searched and searched != ["."]:
        lines.append(f"search {' '.join(searched)}")
    chosen = list(options) or [word for key, value in host if key == "options" for word in value.split()]
    if ndots is not None and not any(option.startswith("ndots:") for option in chosen):
        chosen.append(f"ndots:{ndots}")
    if chosen:
        lines.append(f"options {' '.join(chosen)}")
    return "\n".join(lines) + "\n"


def check_extra_host(text: str) -> None:
    """Refuse an ``--add-host`` that is none. Raises InvalidHost."""
    _extra_line(text, "127.0.0.1")


def _extra_line(text: str, gateway: str) -> str:
    name, _, address = text.partition("=" if "=" in text else ":")
    if not name or not address or any(c.isspace() or not c.isprintable() for c in name):
        raise InvalidHost(f'bad format for add-host: "{text}"')
    if address == "host-gateway":
        return f"{gateway}\t{name}"
    try:
        return f"{ip_address(address)}\t{name}"
    except ValueError:
        raise InvalidHost(f'invalid IP address in add-host: "{address}"') from None


def _host_names() -> list[str]:
    try:
        return _HOSTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return list(_LOCAL_LINES)


def _host_lines() -> list[tuple[str, str]]:
    lines = _parse(_RESOLV)
    servers = [value for key, value in lines if key == "nameserver"]
    if servers == [_RESOLVED_STUB] and _RESOLVED_UPSTREAM.exists():
        return _parse(_RESOLVED_UPSTREAM)
    return lines


def _parse(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    result = []
    for line in text.splitlines():
        words = line.split(None, 1)
        if len(words) == 2 and words[0][0] not in "#;":
            result.append((words[0], words[1].strip()))
    return result


def _is_loopback(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False
