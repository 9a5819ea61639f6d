"""The kernel's edge: the one package with ctypes and subprocesses.

It turns system calls that Python lacks into functions that raise OSError, and knows nothing of images or containers. Modules are
imported by name (``from lamina.linux import mount``); this package imports none of them by itself, as some are on hot paths.
"""
