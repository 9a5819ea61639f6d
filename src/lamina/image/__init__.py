"""Images: names, what they point at, how they come in, go out, change and go away.

``ImageStore`` knows which images there are. Beside it, one module a thing that is done with them: ``intake`` (bytes become a layer),
``mutate`` (an image from an image), ``rootfs`` (import), ``load`` and ``save`` (archives), ``listing``, ``history``, ``removal``,
``verify``.
"""
