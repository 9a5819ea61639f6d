"""The daemon: the engine behind HTTP.

``http`` is the server, ``routes`` has one file a resource (parse, call, render), ``main`` is the process.
"""
