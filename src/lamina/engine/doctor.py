"""What lamina needs of a host, one check a requirement, each with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lamina.linux import mount
from lamina.linux.cgroups import Hierarchies
from lamina.runtime.probe import candidates, find_tool
from lamina.snapshot.probe import erofs_failure

_MINIMUM_FREE = 2 << 30


@dataclass(frozen=True)
class Check:
    """One requirement: how it was found, and what to do if it is not met. Without a *required* one lamina cannot run."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = True


def checks(root: Path = Path("/var/lib/lamina")) -> Iterator[Check]:
    """Look at this host, for a state root at *root*."""
    yield _root_user()
    if os.geteuid() != 0:
        return
    yield _kernel()
    yield _cgroups()
    existing = next(p for p in (root, *root.parents) if p.exists())
    yield _attempt("overlay", lambda: _try_overlay(existing), "load it: modprobe overlay", existing)
    yield _erofs(existing)
    yield _runtime()
    yield _tool("conmon", "conmon")
    yield _tool("nft", "nftables", required=False, why="without it containers have only the networks none and host")
    yield _tool("mmdebstrap", "mmdebstrap", required=False, why="without it lamina bootstrap does not work")
    yield _disk(existing)


def _root_user() -> Check:
    return Check("root", os.geteuid() == 0, f"running as user {os.geteuid()}", "run it with sudo")


def _kernel() -> Check:
    release = platform.release()
    numbers = tuple(int(n) for n in release.split("-")[0].split(".")[:2] if n.isdigit())
    return Check(
        "kernel", numbers >= (5, 8), f"Linux {release}", "lamina needs Linux 5.8; 6.12 for layers without unpacking"
    )


def _cgroups() -> Check:
    hierarchies = Hierarchies.of_host()
    if hierarchies.layout == "v2":
        root = hierarchies.unified
        names = (root / "cgroup.controllers").read_text().split() if root else []
    else:
        names = sorted(hierarchies.controllers)
    missing = [n for n in ("memory", "pids") if n not in names]
    detail = f"{hierarchies.layout}, controllers {' '.join(names)}"
    return Check("cgroups", not missing, detail, f"enable the controllers {' '.join(missing)}")


def _attempt(name: str, attempt: Callable[[], None], remedy: str, place: Path) -> Check:
    try:
        attempt()
    except OSError as error:
        return Check(name, False, str(error), remedy)
    return Check(name, True, f"works on {place}")


def _try_overlay(place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place, prefix=".lamina-doctor-") as scratch:
        for name in ("lower", "upper", "work"):
            Path(scratch, name).mkdir()
        lower = os.open(f"{scratch}/lower", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(mount.overlay((lower,), f"{scratch}/upper", f"{scratch}/work"))
        finally:
            os.close(lower)


def _erofs(place: Path) -> Check:
    failure = erofs_failure(place)
    if failure is None:
        return Check("erofs", True, f"file-backed mounts work on {place}: layers are not unpacked", required=False)
    remedy = "layers will be extracted instead; for speed, use Linux 6.12 with EROFS_FS and EROFS_FS_BACKED_BY_FILE"
    return Check("erofs", False, failure, remedy, required=False)


def _runtime() -> Check:
    wanted = candidates(Hierarchies.of_host().layout)
    found = next((t for t in map(find_tool, wanted) if t is not None), None)
    if found is None:
        return Check("runtime", False, f"neither {' nor '.join(wanted)} is installed", "apt-get install runc")
    return Check("runtime", True, f"{found.name} {found.version}")


def _tool(name: str, package: str, *, required: bool = True, why: str = "") -> Check:
    found = find_tool(name)
    remedy = f"apt-get install {package}" + (f" ({why})" if why else "")
    if found is None:
        return Check(name, False, "not installed", remedy, required)
    return Check(name, True, f"{found.path} {found.version}", required=required)


def _disk(place: Path) -> Check:
    free = shutil.disk_usage(place).free
    return Check(
        "disk", free >= _MINIMUM_FREE, f"{free / 1e9:.1f} GB free on {place}", "free some space, or use --root"
    )
