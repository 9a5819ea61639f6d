"""Which of the API's objects are structs in Go, and which maps: they print differently, and only a map may lack what is asked for.

JSON does not tell. The names of the fields do: those that are maps, or lists where they are null, are listed here; whatever else is an
object is a struct. docker's own types, moby's api/types, are the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MAPS = frozenset(
    "Labels Volumes ExposedPorts PortBindings Ports Networks Options DriverOpts Config Sysctls Tmpfs Annotations StorageOpt Data "
    "Attributes Details Status Containers Runtimes Metadata AuxiliaryAddresses".split()
)
_LISTS = frozenset(
    "Env Cmd Entrypoint OnBuild Shell Binds CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links SecurityOpt VolumesFrom "
    "Mounts Devices DeviceRequests DeviceCgroupRules Ulimits MaskedPaths ReadonlyPaths RepoTags RepoDigests ExecIDs Aliases DNSNames "
    "SecondaryIPAddresses SecondaryIPv6Addresses BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps "
    "BlkioDeviceWriteIOps Layers Warnings Args".split()
)
# what the API leaves out when there is nothing to say, and what Go's clients see then
_LEFT_OUT: dict[str, Any] = {
    **dict.fromkeys("SizeRw SizeRootFs Healthcheck Health StopTimeout Init IPAMConfig".split()),
    **dict.fromkeys("Tmpfs Annotations StorageOpt Sysctls Labels".split()),
    **dict.fromkeys("Mounts Shell OnBuild Entrypoint Cmd Env".split()),
    **dict.fromkeys("StopSignal MacAddress Runtime Name Source Driver Propagation Variant OsVersion".split(), ""),
    **dict.fromkeys("ID Status From".split(), ""),
    **dict.fromkeys("ArgsEscaped NetworkDisabled".split(), False),
}
# Go's names of fields, where JSON's are others
_JSON_NAMES = {
    "ID": ("Id", "id"),
    "DNS": ("Dns",),
    "DNSOptions": ("DnsOptions",),
    "DNSSearch": ("DnsSearch",),
    "APIVersion": ("ApiVersion",),
    **{name: (name[0].lower() + name[1:],) for name in ("Status", "From", "Scope", "Time", "TimeNano")},
}
# the fields of structs that leave some out, in Go's order
_MOUNT = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")


class Nil:
    """Nothing, of a type: ``[]``, ``map[]`` or ``<nil>``. False, empty, and JSON's null."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Struct(dict[str, Any]):
    """An object whose fields are known: one that it lacks is an error. *kind* is its type in messages, if it is no JSON object."""

    kind: str | None = None
    is_row = False  # of a list: made by the client, which sorts its fields

    def for_json(self) -> dict[str, Any]:
        """Its fields, without methods."""
        items = sorted(self.items()) if self.is_row else self.items()
        return {name: value for name, value in items if not callable(value)}

    def member(self, name: str) -> Any:
        """A field by JSON's name or Go's. Raises KeyError."""
        for known in (name, *_JSON_NAMES.get(name, ())):
            if known in self:
                return self[known]
        return _shaped(name, _LEFT_OUT[name])

    def members(self) -> Iterator[Any]:
        """The values of the fields that print, in order."""
        if "RW" in self:
            return (self.get(name, "") for name in _MOUNT)
        return (value for value in self.values() if not callable(value))

    def lacks(self, name: str) -> str:
        """Go's words for a field that is not there."""
        if self.kind is None:
            return f'map has no entry for key "{name}"'
        return f"can't evaluate field {name} in type {self.kind}"


def shaped(value: Any) -> Any:
    """An answer of the API, its objects told apart."""
    return _shaped("", value)


def _shaped(name: str, value: Any) -> Any:
    if value is None:
        return Nil("map[]" if name in _MAPS else "[]" if name in _LISTS else "<nil>")
    if isinstance(value, list):
        return [_shaped("", item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if (
        name in _MAPS
        and not (name == "Config" and "Env" in value)
        and not (name == "Status" and isinstance(value, str))
    ):
        return {key: _shaped("", item) for key, item in value.items()}
    return Struct({key: _shaped(key, item) for key, item in value.items()})
