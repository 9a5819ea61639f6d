"""Root file systems: an image's layers below, one read-write layer on top.

A *lower* is an image's stack of layers made readable, read-only by construction: one EROFS index over the layers' tars, or, where the
kernel cannot mount that, one extracted directory a layer. A *snapshot* is a read-write layer over a lower, mounted with overlayfs as
the root of one container or build step. The two ways to make lowers stand behind one interface, ``LowerDriver``.
"""

from lamina.snapshot.driver import LowerDriver
from lamina.snapshot.probe import choose_driver
from lamina.snapshot.snapshots import Snapshots
from lamina.snapshot.trees import LayerTrees

__all__ = ["LayerTrees", "LowerDriver", "Snapshots", "choose_driver"]
