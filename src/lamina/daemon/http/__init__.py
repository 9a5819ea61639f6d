"""An HTTP/1.1 server for the Engine API, on httptools' parser.

Docker's protocol asks for two things that general servers do not give: a connection can be taken over after the request (*hijacked*) to
carry raw bytes both ways, and a client that closes its writing half still wants to read. Bytes flow through the modules in this order:

    server ─accepts→ channel ─bytes→ head, body ─Request→ connection ─→ handler ─Response→ sending ─bytes→ channel
                                                                          └─hijack→ raw ←─bytes both ways─→ channel
"""

from lamina.daemon.http.connection import ClientGone, Handler, RawStream
from lamina.daemon.http.message import Request, Response, StreamingResponse, json_response
from lamina.daemon.http.server import Server

__all__ = [
    "ClientGone",
    "Handler",
    "RawStream",
    "Request",
    "Response",
    "Server",
    "StreamingResponse",
    "json_response",
]
