"""docker's defaults for what is not asked for: mounts, masked paths, devices, sysctls."""

from __future__ import annotations

from typing import Any

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def mounts(*, privileged: bool, shm_size: int, host_ipc: bool) -> list[dict[str, Any]]:
    """The mounts of every container, in the runtime specification's form, parents first; shared memory of no size is none."""
    access = "rw" if privileged else "ro"
    result = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", access),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", access, "nosuid", "noexec", "nodev"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    ]
    if host_ipc:
        result.append(_mount("/dev/shm", "bind", "/dev/shm", "rbind"))  # noqa: S108 - the host's, as asked
    elif shm_size:
        size = f"size={shm_size}"
        result.append(_mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", size))  # noqa: S108
    return result


def device_rules(*, privileged: bool) -> list[dict[str, Any]]:
    """Which device nodes may be made and opened; the runtime adds null, zero, full, random, urandom, tty and the ptys."""
    if privileged:
        return [{"allow": True, "access": "rwm"}]
    return [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
    ]


def sysctls(*, own_network: bool, remapped: bool = False) -> dict[str, str]:
    """Kernel parameters of a network namespace of one's own: no port is privileged, everybody may ping.

    The kernel takes no groups for the latter that a user namespace does not have.
    """
    if not own_network:
        return {}
    ping = {} if remapped else {"net.ipv4.ping_group_range": "0 2147483647"}
    return {"net.ipv4.ip_unprivileged_port_start": "0", **ping}


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}
