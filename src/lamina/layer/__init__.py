"""Layers: a tar that says how a file tree differs from the one below it.

``tree`` is what such a tar says, ``scan`` reads it from the tar's headers, ``merge`` stacks trees as the OCI specification rules,
``erofs`` writes the result as an index that the kernel mounts over the tars, ``extract`` as directories. ``ingest`` brings a layer in,
in one pass; ``diff`` and ``tarwriter`` make one. Everything here is synchronous: it is run by worker processes and threads.
"""
