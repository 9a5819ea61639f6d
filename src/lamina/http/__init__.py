"""An HTTP/1.1 server for the Engine API, on httptools' parser.

Docker's protocol asks for two things that general servers do not give: a connection can be taken over after the request (*hijacked*) to
carry raw bytes both ways, and a client that closes its writing half still wants to read. Bytes flow through the modules in this order:

    server ─accepts→ channel ─bytes→ head, body ─Request→ connection ─→ handler ─Response→ sending ─bytes→ channel
                                                                          └─hijack→ raw ←─bytes both ways─→ channel
"""

from lamina.http.connection import ClientGone, Handler, RawStream
from lamina.http.message import FileResponse, Request, Response, StreamingResponse, json_response
from lamina.http.server import Server

__all__ = [
    "ClientGone",
    "FileResponse",
    "Handler",
    "RawStream",
    "Request",
    "Response",
    "Server",
    "StreamingResponse",
    "json_response",
]
