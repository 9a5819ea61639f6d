"""Where the daemon is, and starting one where none is."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import TYPE_CHECKING

from lamina.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from lamina.client.tls import TlsSettings

DEFAULT_SOCKET = "/run/lamina/lamina.sock"
_LOG = "/run/lamina/daemon.log"
_LOCK = "/run/lamina/start.lock"
_DAEMON = (sys.executable, "-m", "lamina.daemon.main")
_START_TIMEOUT_S = 15.0
_GIVEN_WAY_S = 3.0
_PAUSE_S = 0.05


class DaemonUnreachable(Unavailable):
    """No daemon answers."""

    def __init__(self, host: str) -> None:
        super().__init__(f"Cannot connect to the lamina daemon at {host}. Is the lamina daemon running?")


class InvalidHost(InvalidArgument):
    """The daemon's address is of no kind that is known."""

    def __init__(self, host: str) -> None:
        super().__init__(f"unable to parse docker host `{host}`")


def choose_host(option: str | None) -> str | None:
    """The host that the user named: by option, LAMINA_HOST or DOCKER_HOST; None if by none of them."""
    return option or os.environ.get("LAMINA_HOST") or os.environ.get("DOCKER_HOST") or None


def connect(host: str | None, tls: TlsSettings | None = None) -> socket.socket:
    """Connect to a daemon; with no host named, to the default socket, where one is started if none answers.

    *tls* is for hosts that are reached by TCP. Raises DaemonUnreachable, InvalidHost or TlsUnusable.
    """
    if host is not None:
        return _connect_to(host, tls)
    default = f"unix://{DEFAULT_SOCKET}"
    try:
        return _connect_to(default)
    except DaemonUnreachable:
        if os.geteuid() != 0:
            raise
    _start_daemon()
    return _connect_to(default)


def _connect_to(host: str, tls: TlsSettings | None = None) -> socket.socket:
    scheme, _, rest = host.partition("://")
    try:
        if scheme == "unix":
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(rest)
            return connection
        if scheme in ("tcp", "http"):
            name, _, port = rest.rstrip("/").rpartition(":")
            name = name.strip("[]") or "127.0.0.1"
            plain = socket.create_connection((name, int(port)))
            if tls is None:
                return plain
            from lamina.client.tls import encrypted

            return encrypted(plain, tls, name)
    except (OSError, ValueError) as error:
        raise DaemonUnreachable(host) from error
    raise InvalidHost(host)


def _start_daemon() -> None:
    """Have one daemon, in a session of its own, and return when it listens. Raises DaemonUnreachable.

    Of several commands that find no daemon at the same time one starts it; the others wait at the lock, and then find it.
    """
    import fcntl

    os.makedirs(os.path.dirname(_LOG), exist_ok=True)
    with open(_LOCK, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _listens():
            sys.stderr.write(f"lamina: starting the daemon in the background (log: {_LOG})\n")
            _launch()


def _launch() -> None:
    import subprocess

    with open(_LOG, "ab") as log:
        process = subprocess.Popen(
            _DAEMON, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + _START_TIMEOUT_S
    has_ended = False
    while not _listens():
        if time.monotonic() >= deadline:
            raise DaemonUnreachable(f"unix://{DEFAULT_SOCKET} (see {_LOG})")
        if not has_ended and process.poll() is not None:
            # it failed, or gave way to one that was started by hand and does not listen yet
            has_ended = True
            deadline = min(deadline, time.monotonic() + _GIVEN_WAY_S)
        time.sleep(_PAUSE_S)


def _listens() -> bool:
    try:
        _connect_to(f"unix://{DEFAULT_SOCKET}").close()
    except DaemonUnreachable:
        return False
    return True
