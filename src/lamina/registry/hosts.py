"""Which servers answer for a registry: itself, mirrors of it, and how each is to be spoken to.

Three places say so, and are read anew for every pull and push, so that a change counts at once:

* ``HOSTS/<registry>/hosts.toml``, or ``HOSTS/_default/hosts.toml`` for all others: mirrors, in containerd's form (containerd,
  docs/hosts.md), with ``rewrite`` as k3s has it;
* ``CERTS/<registry>/``: whom to trust, ``*.crt``, and with what to show who asks, ``*.cert`` and ``*.key``, as docker's;
* the daemon's ``--insecure-registry`` and ``--registry-mirror``.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lamina.errors import InvalidArgument
from lamina.oci.reference import DEFAULT_DOMAIN

HUB_HOST = "registry-1.docker.io"
_ALL = frozenset({"pull", "resolve", "push"})
_READ = frozenset({"pull", "resolve"})


class InvalidHosts(InvalidArgument):
    """A registry's hosts.toml, or an option that names registries, makes no sense."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where


@dataclass(frozen=True)
class Host:
    """A server. Can be sent to a worker.

    *base* is ``https://host[:port]/v2`` or what stands in its place; *may_fall_back* is whether it may speak HTTP instead of HTTPS, as
    the registries of this machine and those that are named insecure may.
    """

    base: str
    capabilities: frozenset[str] = _ALL
    may_fall_back: bool = False
    skip_verify: bool = False
    authorities: tuple[Path, ...] = ()
    certificates: tuple[tuple[Path, Path | None], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    rewrites: tuple[tuple[str, str], ...] = ()
    is_mirror: bool = False

    @property
    def name(self) -> str:
        """Its host, with the port if it has one."""
        return urlsplit(self.base).netloc

    def path_of(self, repository: str) -> str:
        """What the server calls a repository: rewritten by the first rule that fits."""
        for pattern, replacement in self.rewrites:
            if re.search(pattern, repository):
                return re.sub(pattern, _as_python(replacement), repository)
        return repository


@dataclass(frozen=True)
class Settings:
    """What an administrator said of registries. *mirrors* are of the default registry, as docker's ``--registry-mirror`` are."""

    hosts: Path = Path("/etc/lamina/registries")
    certs: Sequence[Path] = (Path("/etc/lamina/certs.d"), Path("/etc/docker/certs.d"))
    insecure: Sequence[str] = ()
    mirrors: Sequence[str] = ()

    def hosts_of(self, domain: str) -> tuple[Host, ...]:
        """The servers that answer for a registry, in the order to ask them; the last one is the registry itself unless hosts.toml
        names another. Raises InvalidHosts.
        """
        origin = self._plain(HUB_HOST if domain == DEFAULT_DOMAIN else domain)
        for name in (domain, origin.name, "_default"):
            file = self.hosts / name.replace(":", "_") / "hosts.toml"
            for path in dict.fromkeys((self.hosts / name / "hosts.toml", file)):
                with suppress(FileNotFoundError, NotADirectoryError):
                    return _read(path, path.read_bytes(), origin, is_default=name == "_default")
        mirrors = [self._mirror(url) for url in self.mirrors] if domain == DEFAULT_DOMAIN else []
        return (*mirrors, origin)

    def is_insecure(self, host: str) -> bool:
        """Whether a server may speak HTTP, or HTTPS with a certificate that nobody signed: this machine's own may, as with docker."""
        name = _without_port(host)
        if is_own(host) or host in self.insecure or name in self.insecure:
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return any(address in network for network in _networks(self.insecure))

    def _plain(self, host: str) -> Host:
        insecure = self.is_insecure(host)
        authorities, certificates = self._certificates(host)
        return Host(
            f"https://{host}/v2",
            may_fall_back=insecure,
            skip_verify=insecure and not authorities,
            authorities=authorities,
            certificates=certificates,
        )

    def _mirror(self, url: str) -> Host:
        parts = urlsplit(url)
        plain = self._plain(parts.netloc)
        base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/v2"
        return Host(
            base,
            _READ,
            skip_verify=plain.skip_verify,
            authorities=plain.authorities,
            certificates=plain.certificates,
            is_mirror=True,
        )

    def _certificates(self, host: str) -> tuple[tuple[Path, ...], tuple[tuple[Path, Path | None], ...]]:
        for directory in self.certs:
            found = directory / host
            if found.is_dir():
                authorities = tuple(sorted(found.glob("*.crt")))
                return authorities, tuple((path, path.with_suffix(".key")) for path in sorted(found.glob("*.cert")))
        return (), ()


def is_own(host: str) -> bool:
    """Whether a host, with or without its port, is this machine."""
    name = _without_port(host)
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def check_settings(settings: Settings) -> None:
    """Raise InvalidHosts for options that make no sense, so that a daemon that starts knows what they mean."""
    for url in settings.mirrors:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment or parts.username:
            raise InvalidHosts("--registry-mirror", f'invalid mirror: "{url}": it must be a URL as https://host[:port]')
    for name in settings.insecure:
        if "://" in name or not name:
            raise InvalidHosts("--insecure-registry", f"{name!r} must be a host, host:port or a subnet, not a URL")


def _read(path: Path, data: bytes, origin: Host, *, is_default: bool) -> tuple[Host, ...]:
    """The servers of a hosts.toml; its ``server`` comes last."""
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidHosts(str(path), str(error)) from None
    fallback = document.get("server")
    described = document.get("host", {})
    if not isinstance(described, dict) or not isinstance(fallback, str | None):
        raise InvalidHosts(str(path), "host must be a table, and server a text")
    hosts = [_host(path, url, fields, origin) for url, fields in described.items()]
    if fallback is None or is_default:
        return (*hosts, origin)
    server = _host(path, fallback, {k: v for k, v in document.items() if k not in ("host", "server")}, origin)
    return (*hosts, server)


def _host(path: Path, url: str, fields: Any, origin: Host) -> Host:
    where = f"{path}, {url}"
    if not isinstance(fields, dict):
        raise InvalidHosts(where, "it must be a table")
    unknown = set(fields) - {
        "capabilities", "ca", "client", "skip_verify", "header", "override_path", "rewrite", "dial_timeout",
    }  # fmt: skip
    if unknown:
        raise InvalidHosts(where, f"unknown key {min(unknown)!r}")
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidHosts(where, "it must be a host or a URL as https://host[:port]")
    prefix = parts.path.rstrip("/")
    if not fields.get("override_path") and not prefix.endswith("/v2"):
        prefix += "/v2"
    base = f"{parts.scheme}://{parts.netloc}{prefix}"
    is_origin = parts.netloc in (origin.name, DEFAULT_DOMAIN) and origin.name in (parts.netloc, HUB_HOST)
    if parts.netloc == DEFAULT_DOMAIN:
        base = base.replace(f"//{DEFAULT_DOMAIN}", f"//{HUB_HOST}", 1)
    capabilities = frozenset(_texts(where, fields, "capabilities")) or _ALL
    if capabilities - _ALL:
        raise InvalidHosts(where, f"unknown capability {min(capabilities - _ALL)!r}: pull, resolve and push are known")
    return Host(
        base,
        capabilities,
        may_fall_back=is_origin and origin.may_fall_back and parts.scheme == "https",
        skip_verify=bool(fields.get("skip_verify")) or (is_origin and origin.skip_verify),
        authorities=tuple(path.parent / text for text in _texts(where, fields, "ca"))
        or (origin.authorities if is_origin else ()),
        certificates=tuple(_pairs(path, where, fields.get("client"))) or (origin.certificates if is_origin else ()),
        headers=_headers(where, fields.get("header", {})),
        rewrites=_rewrites(where, fields.get("rewrite", {})),
        is_mirror=not is_origin,
    )


def _texts(where: str, fields: Mapping[str, Any], name: str) -> list[str]:
    value = fields.get(name, [])
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidHosts(where, f"{name} must be a text or a list of texts")
    return texts


def _pairs(path: Path, where: str, value: Any) -> Iterator[tuple[Path, Path | None]]:
    """``client``: a file, files, or pairs of certificate and key."""
    for item in [value] if isinstance(value, str) else value or []:
        names = [item] if isinstance(item, str) else item
        if not isinstance(names, list) or not 1 <= len(names) <= 2 or not all(isinstance(n, str) for n in names):
            raise InvalidHosts(where, "client must be a file, or a list of [certificate, key]")
        yield path.parent / names[0], (path.parent / names[1] if len(names) == 2 and names[1] else None)


def _headers(where: str, value: Any) -> dict[str, str]:
    """``header``: texts, or lists of them, that go with every request."""
    if not isinstance(value, dict):
        raise InvalidHosts(where, "header must be a table")
    return {name: ", ".join(_texts(where, value, name)) for name in value}


def _rewrites(where: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InvalidHosts(where, "rewrite must be a table of patterns and replacements")
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InvalidHosts(where, f"rewrite {pattern!r}: {error}") from None
    return tuple(value.items())


def _as_python(replacement: str) -> str:
    """Go's ``$1`` and ``${1}`` as Python writes them."""
    return re.sub(r"\$\{?(\d+)\}?", r"\\g<\1>", replacement.replace("\\", "\\\\"))


def _networks(texts: Sequence[str]) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for text in texts:
        with suppress(ValueError):
            yield ipaddress.ip_network(text, strict=False)


def _without_port(host: str) -> str:
    return host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
