"""What both sides agree on about lamina's own build request."""

FRAMED = "application/vnd.lamina.build"
"""The media type of a body that is a JSON object on its first line, and the context's tar after it."""
