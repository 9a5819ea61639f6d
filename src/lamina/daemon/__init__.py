"""The daemon: the engine behind HTTP. ``http`` is the server, ``routes`` one file a resource (parse, call, render), ``main`` the process."""
