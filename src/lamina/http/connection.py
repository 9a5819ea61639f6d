"""One client's connection: its requests are read and answered one after another, by one task."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from lamina.api.errors import error_body, status_of
from lamina.errors import LaminaError
from lamina.http.body import Body, ChunkedFraming, CountedFraming
from lamina.http.channel import Channel, ClientGone
from lamina.http.head import MalformedRequest, RequestHead, read_head
from lamina.http.message import FileResponse, Request, Response, StreamingResponse, json_response
from lamina.http.raw import RawStream, opening
from lamina.http.sending import ResponseWriter, encode_fields

__all__ = ["ClientGone", "Connection", "Handler", "RawStream"]

_log = logging.getLogger(__name__)

Answer = Response | StreamingResponse | FileResponse
Handler = Callable[[Request], Awaitable[Answer | None]]
"""Answers a request; None if it took the connection over. A LaminaError becomes the response that tells it."""


class Connection:
    """The server's side of a connection. ``common`` are the fields of every response, encoded."""

    def __init__(self, channel: Channel, handler: Handler, common: bytes) -> None:
        self._channel = channel
        self._handler = handler
        self._common = common
        self._is_taken_over = False
        self.is_idle = True
        self.is_ending = False
        self._is_sending_endlessly = False

    @property
    def is_worth_waiting_for(self) -> bool:
        """Whether a request is being answered that comes to an end by itself."""
        return not (self.is_idle or self._is_taken_over or self._is_sending_endlessly)

    async def serve(self) -> None:
        """Answer requests until the client goes, one of them ends the connection, or this is cancelled; then it is closed."""
        try:
            while not self.is_ending and await self._serve_next():
                pass
            await self._channel.close()
        except ConnectionError:
            _log.debug("a client went away before it had its answer")
        finally:
            self._channel.abort()

    async def _serve_next(self) -> bool:
        """Answer one request. True if another may follow."""
        self.is_idle = True
        try:
            head = await read_head(self._channel)
        except MalformedRequest as error:
            await ResponseWriter(self._channel, self._common).send(_told(error), keep_alive=False)
            return False
        self.is_idle = False
        if head is None:
            return False
        request = self._request(head)
        response = await self._answer(request)
        if response is None:
            return False
        keep_alive = head.keep_alive and not self.is_ending
        # a stream may be made from the body, whose rest can be judged behind it only
        if not isinstance(response, StreamingResponse):
            keep_alive = keep_alive and request.body.is_cheap_to_skip()
        await self._send(head, response, keep_alive=keep_alive)
        if not keep_alive or not request.body.is_cheap_to_skip():
            return False
        await request.body.skip()
        return True

    def _request(self, head: RequestHead) -> Request:
        framing = ChunkedFraming() if head.length is None else CountedFraming(head.length)
        waits = not head.is_http_1_0 and head.headers.get("Expect", "").lower() == "100-continue"

        async def take_over(content_type: str, fields: Mapping[str, str]) -> RawStream:
            self._is_taken_over = True
            own = encode_fields({"Content-Type": content_type, **fields} if content_type else fields)
            await self._channel.write(opening(head.upgrade) + own + self._common + b"\r\n")
            return RawStream(self._channel)

        return Request(
            head.method,
            head.path,
            head.query,
            head.headers,
            Body(self._channel, framing, expects_continue=waits),
            self._channel,
            take_over,
        )

    async def _answer(self, request: Request) -> Answer | None:
        """Let the handler answer; every failure of it becomes a response, or the end of a connection that it took over."""
        try:
            response = await self._handler(request)
        except ClientGone:
            raise
        except LaminaError as error:
            _log.debug("%s %s: %s", request.method, request.path, error)
            response = _told(error)
        except Exception as error:
            if self._is_taken_over and self._channel.disconnected.is_set():
                raise ClientGone("the client closed the connection") from error
            _log.exception("%s %s", request.method, request.path)
            response = _told(error)
        if self._is_taken_over:
            return None
        if response is None:
            _log.error("%s %s: the handler gave no response", request.method, request.path)
            return _told(RuntimeError("no response"))
        return response

    async def _send(self, head: RequestHead, response: Answer, *, keep_alive: bool) -> None:
        self._is_sending_endlessly = isinstance(response, StreamingResponse) and response.is_endless
        writer = ResponseWriter(self._channel, self._common, head.method == "HEAD", not head.is_http_1_0)
        if isinstance(response, Response):
            await writer.send(response, keep_alive=keep_alive)
            return
        if isinstance(response, FileResponse):
            await writer.send_file(response, keep_alive=keep_alive)
            return
        try:
            await writer.send_stream(response, keep_alive=keep_alive)
        except ClientGone:
            raise
        except Exception as error:
            # the client sees that the stream was cut
            _log.exception("%s %s: the response failed on its way", head.method, head.path)
            raise ClientGone("the response failed on its way") from error


def _told(error: BaseException) -> Response:
    status = status_of(error)
    return Response(status) if status == 304 else json_response(error_body(error), status)
