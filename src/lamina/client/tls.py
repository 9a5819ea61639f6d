"""TLS to a daemon on another machine: docker's flags and variables for it, and the relay that the rest of a command talks to.

A command finishes writing and goes on reading (``run -i``), which Python's TLS sockets cannot. So it talks to one end of a socket pair,
and a thread carries the bytes between the other end and the daemon; each direction ends by its own ``close_notify``.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from contextlib import suppress

from lamina.errors import InvalidArgument

_READ_BYTES = 64 << 10


class TlsUnusable(InvalidArgument):
    """A certificate or key cannot be read, or the daemon's is not to be trusted."""


class TlsSettings:
    """The files of a client's side: who signs the daemon's certificate, the client's certificate and its key."""

    __slots__ = ("ca", "certificate", "key", "verifies")

    def __init__(self, ca: str, certificate: str, key: str, *, verifies: bool) -> None:
        self.ca = ca
        self.certificate = certificate
        self.key = key
        self.verifies = verifies

    def context(self) -> ssl.SSLContext:
        """How connections are encrypted. Raises TlsUnusable."""
        context = ssl.create_default_context()
        if not self.verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            if self.verifies:
                context.load_verify_locations(self.ca)
            if os.path.exists(self.certificate) or self.verifies:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join((self.ca, self.certificate, self.key))
            raise TlsUnusable(f"unable to resolve docker endpoint: {error} ({files})") from None
        return context


def settings_of(
    *, tls: bool, tlsverify: bool, ca: str | None, certificate: str | None, key: str | None
) -> TlsSettings | None:
    """What the flags ask for, completed from DOCKER_TLS_VERIFY, DOCKER_TLS and DOCKER_CERT_PATH; None for no TLS."""
    environment = os.environ
    verifies = tlsverify or bool(environment.get("DOCKER_TLS_VERIFY"))
    if not (tls or verifies or environment.get("DOCKER_TLS")):
        return None
    home = environment.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    return TlsSettings(
        ca or f"{home}/ca.pem", certificate or f"{home}/cert.pem", key or f"{home}/key.pem", verifies=verifies
    )


def encrypted(remote: socket.socket, settings: TlsSettings, name: str) -> socket.socket:
    """A socket whose bytes travel encrypted to *remote*, whose certificate is for *name*. Raises TlsUnusable, or OSError."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = settings.context().wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        _shake_hands(remote, tls, incoming, outgoing)
    except ssl.SSLError as error:
        remote.close()
        raise TlsUnusable(f"error during connect: {error}") from None
    own, others = socket.socketpair()
    relay = _Relay(remote, others, tls, incoming, outgoing)
    threading.Thread(target=relay.run, name="tls", daemon=True).start()
    return own


def _shake_hands(remote: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            remote.sendall(outgoing.read())
            data = remote.recv(_READ_BYTES)
            if not data:
                raise ssl.SSLError("the daemon closed the connection") from None
            incoming.write(data)
        else:
            remote.sendall(outgoing.read())
            return


class _Relay:
    """Carries bytes both ways until both have ended."""

    def __init__(
        self,
        remote: socket.socket,
        local: socket.socket,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        self._remote = remote
        self._local = local
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing

    def run(self) -> None:
        """The thread's work."""
        with self._remote, self._local, suppress(OSError):
            self._decrypt()  # what came along with the handshake
            is_writing = True
            while True:
                watched = [self._remote, *([self._local] if is_writing else [])]
                ready, _, _ = select.select(watched, [], [])
                if self._local in ready:
                    is_writing = self._take_local()
                if self._remote in ready and not self._take_remote():
                    return

    def _take_local(self) -> bool:
        data = self._local.recv(_READ_BYTES)
        if data:
            self._tls.write(data)
        else:
            with suppress(ssl.SSLError):  # it is sent then; the daemon's own comes when it likes
                self._tls.unwrap()
        self._remote.sendall(self._outgoing.read())
        return bool(data)

    def _take_remote(self) -> bool:
        data = self._remote.recv(_READ_BYTES)
        if not data:
            return False
        self._incoming.write(data)
        return self._decrypt()

    def _decrypt(self) -> bool:
        """Hand on what can be read; False at the daemon's end of it."""
        try:
            while plain := self._tls.read(_READ_BYTES):
                self._local.sendall(plain)
        except ssl.SSLWantReadError:
            return True
        except ssl.SSLError:
            return False
        return False
