"""How a container sits on its host (HostConfig but for limits, mounts and networks), by ``POST /containers/create``."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import docker
import pytest
from docker.types import LogConfig

from compat.matrix.kernel import is_v2
from compat.matrix.lab import Cases, Lab
from lamina.linux.cgroups import Hierarchies

CASES = Cases()
_CAP_EFF = "grep CapEff /proc/self/status | cut -f2"
_NET_ADMIN, _CHOWN = 1 << 12, 1 << 0


@CASES.covers("HostConfig: CapAdd CapDrop")
def capabilities(lab: Lab) -> None:
    plain = int(lab.run(_CAP_EFF), 16)
    changed = int(lab.run(_CAP_EFF, host={"cap_add": ["NET_ADMIN"], "cap_drop": ["CAP_CHOWN"]}), 16)
    assert changed == (plain | _NET_ADMIN) & ~_CHOWN
    assert int(lab.run(_CAP_EFF, host={"cap_drop": ["ALL"]}), 16) == 0


CASES.refuses("HostConfig: CapAdd", [400], "CAP_BOGUS", host={"cap_add": ["BOGUS"]})
CASES.refuses("HostConfig: CapDrop", [400], "CAP_BOGUS", host={"cap_drop": ["BOGUS"]})


@CASES.covers("HostConfig: Privileged")
def privileges(lab: Lab) -> None:
    script = f"{_CAP_EFF}; grep Seccomp: /proc/self/status | cut -f2; grep -c ' /sys sysfs ro' /proc/mounts"
    plain, privileged = (lab.run(f"{script} || true", host={"privileged": p}).splitlines() for p in (False, True))
    assert int(privileged[0], 16) > int(plain[0], 16)
    assert (plain[1:], privileged[1:]) == (["2", "1"], ["0", "0"])


@CASES.covers("HostConfig: SecurityOpt")
def security_options(lab: Lab) -> None:
    script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2"
    assert lab.run(script) == "0\n2"
    assert lab.run(script, host={"security_opt": ["no-new-privileges", "seccomp=unconfined"]}) == "1\n0"
    refusal = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    told = lab.run("mkdir /x 2>&1 || true", host={"security_opt": ["seccomp=" + json.dumps(refusal)]})
    assert "Operation not permitted" in told


CASES.refuses("HostConfig: SecurityOpt", [400], "invalid --security-opt", "bogus", host={"security_opt": ["bogus=1"]})


@CASES.covers("HostConfig: MaskedPaths ReadonlyPaths")
def hidden_paths(lab: Lab) -> None:
    lab.run("cat /proc/uptime && echo 1 > /proc/sys/net/ipv4/ip_forward", code=1)
    host = {"MaskedPaths": ["/proc/uptime", "/etc"], "ReadonlyPaths": ["/root"]}
    assert lab.run("cat /proc/uptime; ls /etc; touch /root/f 2>&1 || true", host=host).endswith("Read-only file system")
    lab.run("ls /proc/scsi /proc/acpi 2>/dev/null; head -c1 /proc/kcore | wc -c | grep -q 0")
    shown = lab.api.inspect_container(lab.made[-2])["HostConfig"]
    assert (shown["MaskedPaths"], shown["ReadonlyPaths"]) == (host["MaskedPaths"], host["ReadonlyPaths"])


CASES.shows(
    "HostConfig: ReadonlyRootfs",
    "touch /f 2>/dev/null || echo no; touch /dev/shm/f && echo yes",
    "no\nyes",
    host={"read_only": True},
)
CASES.shows("HostConfig: GroupAdd", "id -G", "0 77 1234", host={"group_add": ["extra", 1234]})
CASES.refuses("HostConfig: GroupAdd", [400, 500], "nosuch", host={"group_add": ["nosuch"]}, starts=True)
CASES.shows("HostConfig: OomScoreAdj", "cat /proc/self/oom_score_adj", "500", host={"oom_score_adj": 500})
CASES.refuses("HostConfig: OomScoreAdj", [400], "[-1000, 1000]", host={"oom_score_adj": 1001})
CASES.shows("HostConfig: ShmSize", "df -k /dev/shm | awk 'NR == 2 { print $2 }'", "3072", host={"shm_size": 3 << 20})
CASES.refuses("HostConfig: ShmSize", [400], "shm size", host={"ShmSize": -1})
CASES.shows(
    "HostConfig: Sysctls",
    "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax",
    "99\n4096",
    host={"sysctls": {"net.ipv4.ip_default_ttl": "99", "kernel.msgmax": "4096"}},
)
CASES.refuses(
    "HostConfig: Sysctls", [400, 500], "kernel.pid_max", host={"sysctls": {"kernel.pid_max": "9999"}}, starts=True
)
CASES.shows("HostConfig: Tmpfs", "stat -c %a /x; grep -c 'tmpfs /x .*size=1024k' /proc/mounts", "700\n1",
            host={"tmpfs": {"/x": "size=1m,mode=700"}})  # fmt: skip
CASES.refuses("HostConfig: Tmpfs", [400], "invalid tmpfs option", "bogus", host={"tmpfs": {"/x": "bogus"}})


@CASES.covers("HostConfig: Init")
def an_init(lab: Lab) -> None:
    """It is the first process, and takes in orphans."""
    assert lab.run("echo $$", host={"init": False}) == "1"
    container = lab.start("(sleep 0.1 &); exec sleep 600", host={"init": True})
    assert lab.execute(container, "cat /proc/1/comm") in ("docker-init", "tini")
    lab.until(lambda: lab.execute(container, "ps -o comm,stat | grep -c ^sleep") == "1")


@CASES.covers("HostConfig: PidMode")
def processes_of_others(lab: Lab) -> None:
    host_side = Path("/proc/self/ns/pid").readlink().as_posix()
    assert lab.run("readlink /proc/self/ns/pid", host={"pid_mode": "host"}) == host_side
    donor = lab.start()
    told = lab.run("readlink /proc/self/ns/pid; ps -o comm", host={"pid_mode": f"container:{donor}"})
    assert told.splitlines()[0] == lab.execute(donor, "readlink /proc/self/ns/pid") != host_side
    assert "sleep" in told
    lab.refused([400], "invalid PID mode", host={"PidMode": "bogus"})
    lab.refused([400, 404], "No such container: nosuch", host={"PidMode": "container:nosuch"})


@CASES.covers("HostConfig: IpcMode")
def shared_memory_of_others(lab: Lab) -> None:
    ipc = "readlink /proc/self/ns/ipc"
    assert lab.run(ipc, host={"ipc_mode": "host"}) == Path("/proc/self/ns/ipc").readlink().as_posix()
    donor = lab.start("echo shared > /dev/shm/f; exec sleep 600", host={"ipc_mode": "shareable"})
    lab.until(lambda: lab.execute(donor, "cat /dev/shm/f") == "shared")
    assert lab.run("cat /dev/shm/f", host={"ipc_mode": f"container:{donor}"}) == "shared"
    assert lab.run("grep -c /dev/shm /proc/mounts || true", host={"ipc_mode": "none"}) == "0"
    private = lab.start(host={"ipc_mode": "private"})
    lab.refused([409, 400, 500], "non-shareable IPC", host={"ipc_mode": f"container:{private}"}, starts=True)
    lab.refused([400], "invalid IPC mode", host={"IpcMode": "bogus"})


@CASES.covers("HostConfig: UTSMode")
def a_name_of_the_host(lab: Lab) -> None:
    assert lab.run("hostname", host={"uts_mode": "host"}) == os.uname().nodename
    lab.refused([400], "invalid UTS mode", host={"UTSMode": "bogus"})
    lab.refused([400], "hostname and the UTS mode", host={"uts_mode": "host"}, hostname="x")


@CASES.covers("HostConfig: CgroupnsMode")
def a_view_of_control_groups(lab: Lab) -> None:
    own = lab.run("cat /proc/self/cgroup", host={"cgroupns": "private"})
    shared = lab.run("cat /proc/self/cgroup", host={"cgroupns": "host"})
    assert {line.rsplit(":", 1)[1] for line in own.splitlines()} == {"/"}
    assert lab.made[-1] in shared
    plain = lab.run("cat /proc/self/cgroup")
    assert (lab.made[-1] in plain) != is_v2()  # which one is the default depends on the version
    lab.refused([400], "invalid cgroup namespace mode", host={"CgroupnsMode": "bogus"})


@CASES.covers("HostConfig: CgroupParent")
def a_parent_of_the_control_group(lab: Lab) -> None:
    parent = f"{lab.daemon.cgroup}/parent"
    told = lab.run("cat /proc/self/cgroup", host={"cgroup_parent": parent, "cgroupns": "host"})
    assert f"{parent}/{lab.made[-1]}" in told
    lab.api.remove_container(lab.made[-1])
    for directory in Hierarchies.of_host().directories(parent):
        with suppress(FileNotFoundError):
            directory.rmdir()


@CASES.covers("HostConfig: UsernsMode")
def a_map_of_users(lab: Lab) -> None:
    assert lab.run("cat /proc/self/uid_map", host={"userns_mode": "host"}).split() == ["0", "0", "4294967295"]
    lab.refused([400, 501], "userns", host={"UsernsMode": "bogus"})


@CASES.covers("HostConfig: Cgroup")
def a_control_group_of_another(lab: Lab) -> None:
    """Nothing has come of the field in docker: it is kept and shown."""
    container = lab.start("true", host={"Cgroup": "container:nosuch"})
    assert lab.api.inspect_container(container)["HostConfig"]["Cgroup"] == "container:nosuch"


@CASES.covers("HostConfig: ContainerIDFile")
def a_file_for_the_id(lab: Lab) -> None:
    """It is the client that writes it; the daemon remembers its name."""
    path = lab.tmp_path / "id"
    container = lab.start("true", host={"ContainerIDFile": str(path)})
    assert lab.api.inspect_container(container)["HostConfig"]["ContainerIDFile"] == str(path)
    assert not path.exists()


@CASES.covers("HostConfig: Annotations")
def notes_for_the_runtime(lab: Lab) -> None:
    """The runtime is told them, and ``inspect`` shows them."""
    container = lab.start(host={"Annotations": {"org.example.a": "b"}})
    assert lab.api.inspect_container(container)["HostConfig"]["Annotations"] == {"org.example.a": "b"}
    specs = [json.loads(p.read_text()) for p in lab.daemon.run_root.rglob("config.json") if container in str(p)]
    assert [spec["annotations"]["org.example.a"] for spec in specs] == ["b"]


CASES.refuses(
    "HostConfig: Annotations",
    [400],
    "annotation",
    host={"Annotations": {"": "b"}},
)
CASES.refuses("HostConfig: ConsoleSize", [400], "ConsoleSize", host={"ConsoleSize": [-1, -1]})  # fmt: skip


@CASES.covers("HostConfig: ConsoleSize")
def a_terminal_s_size(lab: Lab) -> None:
    assert lab.run("stty size", host={"ConsoleSize": [33, 77]}, tty=True) == "33 77"


@CASES.covers("HostConfig: AutoRemove")
def removal_at_the_end(lab: Lab) -> None:
    container = lab.start("sleep 0.2", host={"auto_remove": True}, volumes=["/data"])
    (volume,) = (point["Name"] for point in lab.api.inspect_container(container)["Mounts"])
    assert lab.api.wait(container, condition="removed")["StatusCode"] == 0
    with pytest.raises(docker.errors.NotFound):
        lab.api.inspect_container(container)
    with pytest.raises(docker.errors.NotFound):
        lab.api.inspect_volume(volume)
    policy = {"Name": "always"}
    lab.refused([400], "AutoRemove", host={"auto_remove": True, "restart_policy": policy})


@CASES.covers("HostConfig: RestartPolicy\nRestartPolicy: Name MaximumRetryCount")
def as_many_starts_as_are_granted(lab: Lab) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    container = lab.start("exit 3", host={"restart_policy": policy})
    lab.until(lambda: lab.state(container)["Status"] == "exited")
    shown = lab.api.inspect_container(container)
    assert (shown["RestartCount"], shown["State"]["ExitCode"]) == (2, 3)
    assert shown["HostConfig"]["RestartPolicy"] == policy
    content = lab.start("exit 0", host={"restart_policy": {"Name": "on-failure"}})
    lab.api.wait(content)
    assert lab.api.inspect_container(content)["RestartCount"] == 0


@CASES.covers("RestartPolicy: Name MaximumRetryCount")
def starts_that_mean_nothing(lab: Lab) -> None:
    lab.refused([400], "invalid restart policy", "bogus", host={"RestartPolicy": {"Name": "bogus"}})
    for policy in ({"Name": "always", "MaximumRetryCount": 1}, {"Name": "on-failure", "MaximumRetryCount": -1}):
        lab.refused([400], "maximum retry count", host={"RestartPolicy": policy})


@CASES.covers("RestartPolicy: Name")
def starts_until_it_is_stopped(lab: Lab) -> None:
    container = lab.start("exit 0", host={"restart_policy": {"Name": "unless-stopped"}})
    lab.until(lambda: lab.api.inspect_container(container)["RestartCount"] > 0)
    lab.api.stop(container, timeout=0)
    assert not lab.state(container)["Running"]


@CASES.covers("HostConfig: LogConfig\nHostConfig.LogConfig: Type Config")
def where_logs_go(lab: Lab) -> None:
    for kind in (LogConfig.types.JSON, LogConfig.types.LOCAL if hasattr(LogConfig.types, "LOCAL") else "local"):
        host = {"log_config": {"type": kind, "config": {"max-size": "1k", "max-file": "2"}}}
        told = lab.run("for i in $(seq 1 200); do echo line $i; done", host=host)
        assert told.endswith("line 200")
        assert not told.startswith("line 1\n")
    silent = lab.start("echo x", host={"log_config": {"type": "none"}})
    lab.api.wait(silent)
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.logs(silent)
    lab.told(raised.value, [400, 500, 501], "logging driver does not support reading")
    lab.refused([400, 501], "bogus", host={"LogConfig": {"Type": "bogus"}})
    lab.refused([400], "bogus-option", host={"LogConfig": {"Type": "json-file", "Config": {"bogus-option": "1"}}})


CASES.shows("HostConfig: Runtime", "echo ran", "ran", host={"runtime": "runc"})
CASES.refuses("HostConfig: Runtime", [400], "unknown or invalid runtime name: bogus", host={"runtime": "bogus"})
CASES.refuses("HostConfig: StorageOpt", [400, 501], "storage-opt", host={"storage_opt": {"size": "1g"}})
CASES.refuses("HostConfig: VolumeDriver", [400, 404, 501], "volume", host={"volume_driver": "bogus"})
CASES.shows("HostConfig: VolumeDriver", "echo ran", "ran", host={"volume_driver": "local"})
# Windows' own; docker on Linux refuses the first and takes no notice of the others, which lamina refuses
CASES.refuses("HostConfig: Isolation", [400, 501], "isolation", host={"isolation": "hyperv"})
CASES.shows("HostConfig: Isolation", "echo ran", "ran", host={"isolation": "default"})
CASES.refuses("HostConfig: CpuCount", [400, 501], "cpu-count", host={"cpu_count": 1})
CASES.refuses("HostConfig: CpuPercent", [400, 501], "cpu-percent", host={"cpu_percent": 50})
CASES.refuses("HostConfig: IOMaximumIOps", [400, 501], "io-maxiops", host={"IOMaximumIOps": 5})
CASES.refuses("HostConfig: IOMaximumBandwidth", [400, 501], "io-maxbandwidth", host={"IOMaximumBandwidth": 5})
