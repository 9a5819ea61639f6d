"""Lines for syslog: where they go and what they look like (RFC 3164, RFC 5424; docker's ``syslog`` driver)."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from logging.handlers import SysLogHandler
from urllib.parse import urlsplit

from lamina.errors import InvalidArgument

SYSLOG_OPTIONS = frozenset({"syslog-address", "syslog-facility", "syslog-format"})
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_DEFAULT_PORT = 514
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_INFO, _ERROR = 6, 3
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class SyslogTarget:
    """An address, a facility's number and a format; an empty scheme is the host's own syslog."""

    scheme: str
    host: str
    port: int
    path: str
    facility: int
    format: str

    @classmethod
    def of(cls, options: Mapping[str, str]) -> SyslogTarget:
        """Read a log's options. Raises InvalidArgument."""
        address = options.get("syslog-address", "")
        form = options.get("syslog-format", "")
        if form not in _FORMATS:
            raise InvalidArgument(f"Invalid syslog format: {form}")
        facility = _facility(options.get("syslog-facility", "") or "daemon")
        if not address:
            return cls("", "", 0, "", facility, form)
        try:
            parts = urlsplit(address)
            port = parts.port or _DEFAULT_PORT
        except ValueError as error:
            raise InvalidArgument(f"invalid syslog-address {address!r}: {error}") from None
        if parts.scheme in ("unix", "unixgram") and parts.path:
            return cls(parts.scheme, "", 0, parts.path, facility, form)
        if parts.scheme in ("udp", "tcp", "tcp+tls") and parts.hostname:
            return cls(parts.scheme, parts.hostname, port, "", facility, form)
        raise InvalidArgument(f"invalid syslog-address {address!r}: expected udp, tcp, tcp+tls, unix or unixgram")

    def connect(self) -> socket.socket:
        """A connection to it. Blocking. Raises OSError."""
        if self.scheme == "":
            return _connect_local()
        if self.scheme in ("unix", "unixgram"):
            return _connect_unix(self.path, socket.SOCK_STREAM if self.scheme == "unix" else socket.SOCK_DGRAM)
        if self.scheme == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
            connection = socket.socket(family, kind, protocol)
            connection.connect(address)
            return connection
        plain = socket.create_connection((self.host, self.port), _TIMEOUT_S)
        if self.scheme == "tcp":
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)

    def message(self, text: bytes, *, is_error: bool, tag: str, when: datetime) -> bytes:
        """A line as it is sent; in a stream lines end with a newline."""
        priority = self.facility << 3 | (_ERROR if is_error else _INFO)
        name = socket.gethostname()
        if self.format.startswith("rfc5424"):
            digits = "microseconds" if self.format == "rfc5424micro" else "seconds"
            head = f"<{priority}>1 {when.isoformat(timespec=digits)} {name} {tag} {os.getpid()} {tag} - "
        else:
            stamp = time.strftime("%b %e %H:%M:%S", when.astimezone().timetuple())
            head = f"<{priority}>{stamp} {'' if self.scheme == '' else name + ' '}{tag}[{os.getpid()}]: "
        return head.encode() + text.rstrip(b"\n") + (b"\n" if self.scheme in ("tcp", "tcp+tls", "unix") else b"")


def _facility(text: str) -> int:
    if text.isdigit() and int(text) < 24:
        return int(text)
    try:
        return SysLogHandler.facility_names[text]
    except KeyError:
        raise InvalidArgument(f"invalid syslog facility: {text}") from None


def _connect_local() -> socket.socket:
    failed: OSError = FileNotFoundError("Unix syslog delivery error")
    for path in _LOCAL:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            try:
                return _connect_unix(path, kind)
            except OSError as error:
                failed = error
    raise failed


def _connect_unix(path: str, kind: socket.SocketKind) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, kind)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection
