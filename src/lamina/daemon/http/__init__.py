"""An HTTP/1.1 server for the Engine API, on httptools' parser.

Docker's protocol asks for two things that general servers do not give: a connection can be taken over after the request (*hijacked*) to
carry raw bytes both ways, and a client that closes its writing half still wants to read.
"""

from lamina.daemon.http.message import Request, Response, StreamingResponse, json_response
from lamina.daemon.http.server import Server

__all__ = ["Request", "Response", "Server", "StreamingResponse", "json_response"]
