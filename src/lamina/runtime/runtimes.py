"""The OCI runtimes that containers may choose from, by name (``--runtime``), each with conmon to drive it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from lamina.runtime.monitor import Monitor
from lamina.runtime.oci_runtime import OciRuntime

_ALIASES = ("runc", "io.containerd.runc.v2")
"""What docker's clients call the default, whatever it is."""


class Runtimes:
    """The default runtime and the others. What a name meant is looked up anew each time, as a runtime may be gone with a new daemon."""

    def __init__(
        self, default: OciRuntime, others: Mapping[str, OciRuntime], monitor_for: Callable[[OciRuntime], Monitor]
    ) -> None:
        self.default = default
        self._by_name = {**others, default.tool.name: default}
        self._monitors = {id(runtime): monitor_for(runtime) for runtime in self._by_name.values()}

    @property
    def paths(self) -> dict[str, str]:
        """The runtimes' programs by name."""
        return {name: runtime.tool.path for name, runtime in sorted(self._by_name.items())}

    @property
    def names(self) -> Collection[str]:
        """Every name that means one."""
        return {*self._by_name, *_ALIASES}

    def all(self) -> Collection[OciRuntime]:
        """Every runtime once."""
        return self._by_name.values()

    def of(self, name: str | None) -> OciRuntime:
        """The runtime of a name; the default for one that means none any more."""
        return self._by_name.get(name or "", self.default)

    def monitor_of(self, name: str | None) -> Monitor:
        """What starts containers with it."""
        return self._monitors[id(self.of(name))]
