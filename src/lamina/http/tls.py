"""TLS on TCP: a channel whose bytes are encrypted on their way (``--tls``, ``--tlsverify``; RFC 8446).

asyncio's own TLS closes a connection when the client has finished writing. The API's hijacked streams need the half that is left, so the
records go through OpenSSL's memory buffers here, and each direction ends by its own ``close_notify``.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from lamina.errors import InvalidArgument
from lamina.http.channel import Channel, ClientGone

_log = logging.getLogger(__name__)
_READ_BYTES = 256 << 10
_HANDSHAKE_TIMEOUT_S = 30.0


class InvalidCertificate(InvalidArgument):
    """A certificate or key cannot be read."""


@dataclass(frozen=True)
class TlsFiles:
    """The daemon's certificate and key; with *ca* clients must show a certificate that it has signed."""

    certificate: Path
    key: Path
    ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """How connections are encrypted. Raises InvalidCertificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidCertificate(
                f"Could not load X509 key pair (cert: {str(self.certificate)!r}, key: {str(self.key)!r}): {error}"
            ) from None
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except (OSError, ssl.SSLError) as error:
                raise InvalidCertificate(f"could not read CA certificate {str(self.ca)!r}: {error}") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class TlsChannel(Channel):
    """A connection whose client is served when it has shown that it may."""

    def __init__(self, on_open: Callable[[Channel], None], context: ssl.SSLContext) -> None:
        super().__init__(on_open)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_shaking_hands = True
        self._has_finished = False
        self._patience: asyncio.TimerHandle | None = None

    async def send_file(self, file: BinaryIO, offset: int, length: int) -> None:
        """See Channel; the bytes are encrypted here."""
        file.seek(offset)
        while length and (data := file.read(min(length, _READ_BYTES))):
            length -= len(data)
            await self.write(data)
        if length:
            raise ClientGone("the file ended early")

    def _send(self, data: bytes) -> None:
        if not self._has_finished:
            self._tls.write(data)
            self._flush()

    def _finish(self) -> None:
        if not self._has_finished and not self._is_shaking_hands:
            self._has_finished = True
            with suppress(ssl.SSLError):  # it is sent then; the client's own comes when it likes
                self._tls.unwrap()
            self._flush()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client connected."""
        self._use(cast(asyncio.Transport, transport))
        self._patience = asyncio.get_running_loop().call_later(_HANDSHAKE_TIMEOUT_S, self.abort)

    def data_received(self, data: bytes) -> None:
        """asyncio: encrypted bytes arrived."""
        self._incoming.write(data)
        try:
            if self._is_shaking_hands:
                self._tls.do_handshake()
                self._is_shaking_hands = False
                self._be_patient_no_more()
                self._on_open(self)
            while plain := self._tls.read(_READ_BYTES):
                super().data_received(plain)
            super().eof_received()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            super().eof_received()
        except ssl.SSLError as error:
            _log.warning("TLS handshake or record error: %s", error.reason or error)
            self._flush()
            self._transport.close()
            return
        self._flush()

    def eof_received(self) -> bool:
        """asyncio: the connection's input ended; a client that meant to go on reading would have said so before."""
        if self._is_shaking_hands:
            return False
        super().eof_received()
        self._tell_gone()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._be_patient_no_more()
        super().connection_lost(error)

    def _be_patient_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._transport.is_closing():
            self._transport.write(data)
