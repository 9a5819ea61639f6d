"""A container's life after it was made: from list and inspection to removal and prune, with events and disk use."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import docker
import pytest

from compat.matrix.lab import Cases, Lab, as_json

CASES = Cases()
_TRAPS = "trap 'exit 9' USR1; trap 'exit 8' TERM; touch /ready; while :; do sleep 0.05; done"


def _ready(lab: Lab, script: str = _TRAPS, **config: Any) -> str:
    """A running container that has come so far that its signals are caught."""
    container = lab.start(script, **config)
    lab.until(lambda: lab.execute(container, "ls /ready 2>/dev/null") == "/ready")
    return container


@CASES.covers("GET /containers/json? all limit size filters")
def a_list(lab: Lab) -> None:
    name = lab.name()
    first = lab.create(query={"name": name}, labels={"a": name})
    second = lab.start(query={"name": f"{name}2"}, labels={"a": name}, ports=[81], volumes=["/lists"])
    mine = {"label": [f"a={name}"]}
    assert lab.ids(filters=mine) == [second, first]
    assert lab.ids(all=False, filters=mine) == [second]
    assert lab.ids(all=False, limit=1) == [second]
    for filters, found in (
        ({"status": ["created"]}, [first]),
        ({"status": ["exited"]}, []),
        ({"before": [second]}, [first]),
        ({"since": [first]}, [second]),
        ({"name": [f"^/?{name}$"]}, [first]),
        ({"id": [second[:20]]}, [second]),
        ({"ancestor": ["busybox"]}, [second, first]),
        ({"ancestor": ["nosuch"]}, []),
        ({"expose": ["80-90/tcp"]}, [second]),
        ({"publish": ["81"]}, []),
        ({"volume": ["/lists"]}, [second]),
        ({"network": ["bridge"]}, [second, first]),
        ({"network": ["none"]}, []),
        ({"health": ["none"]}, [second, first]),
        ({"health": ["healthy"]}, []),
        ({"is-task": ["false"]}, [second, first]),
        ({"is-task": ["true"]}, []),
        ({"exited": ["3"]}, []),
        ({"isolation": ["default"]}, [second, first]),
    ):
        assert lab.ids(filters=mine | filters) == found, filters
    for bad in ({"bogus": ["x"]}, {"status": ["bogus"]}, {"exited": ["x"]}, {"before": ["nosuch"]}):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.ids(filters=bad)
        lab.told(raised.value, [400, 404], "nosuch" if "before" in bad else "invalid filter")
    lab.execute(second, "head -c 100000 /dev/zero > /f")
    (sized,) = lab.api.containers(size=True, filters={"id": second})
    assert 100000 <= sized["SizeRw"] < sized["SizeRootFs"]
    (plain,) = lab.api.containers(filters={"id": second})
    assert "SizeRw" not in plain
    with pytest.raises(docker.errors.APIError) as raised:
        lab.get("/containers/json", filters="{")
    lab.told(raised.value, [400])


@CASES.covers("GET /containers/json? limit")
def a_limit_that_is_no_number(lab: Lab) -> None:
    with pytest.raises(docker.errors.APIError) as raised:
        lab.get("/containers/json", limit="x")
    lab.told(raised.value, [400], "x")


@CASES.covers("GET /containers/{id}/json? size")
def an_inspection(lab: Lab) -> None:
    container = lab.start("head -c 50000 /dev/zero > /f")
    lab.api.wait(container)
    sized = lab.get(f"/containers/{container}/json", size=1).json()
    assert 50000 <= sized["SizeRw"] < sized["SizeRootFs"]
    assert "SizeRw" not in lab.api.inspect_container(container)
    with pytest.raises(docker.errors.NotFound):
        lab.api.inspect_container("nosuch")


@CASES.covers("POST /containers/{id}/start? detachKeys")
def keys_to_leave_by_at_a_start(lab: Lab) -> None:
    """They are for the client's own use."""
    container = lab.create("sleep 600")
    assert lab.post(f"/containers/{container}/start", detachKeys="ctrl-a").status_code == 204
    assert lab.state(container)["Running"]
    assert lab.post(f"/containers/{container}/start", detachKeys="ctrl-a").status_code == 304


@CASES.covers("POST /containers/{id}/stop? signal t")
def a_stop(lab: Lab) -> None:
    container = _ready(lab)
    lab.post(f"/containers/{container}/stop", signal="SIGUSR1", t=20)
    assert lab.state(container)["ExitCode"] == 9
    assert lab.post(f"/containers/{container}/stop").status_code == 304
    deaf = _ready(lab, "trap '' TERM; touch /ready; while :; do sleep 0.05; done")
    lab.api.stop(deaf, timeout=0)
    assert lab.state(deaf)["ExitCode"] == 137
    for query in ({"signal": "BOGUS"}, {"t": "x"}):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.post(f"/containers/{_ready(lab)}/stop", **query)
        lab.told(raised.value, [400], next(iter(query.values())))


@CASES.covers("POST /containers/{id}/stop? t")
def a_stop_that_waits_for_ever(lab: Lab) -> None:
    """A negative time is one without an end."""
    container = _ready(lab, "trap 'sleep 1; exit 6' TERM; touch /ready; while :; do sleep 0.05; done")
    lab.post(f"/containers/{container}/stop", t=-1)
    assert lab.state(container)["ExitCode"] == 6


@CASES.covers("POST /containers/{id}/restart? signal t")
def a_restart(lab: Lab) -> None:
    since = time.time()
    container = _ready(lab)
    before = lab.state(container)
    lab.post(f"/containers/{container}/restart", signal="SIGUSR1", t=20)
    after = lab.state(container)
    assert after["Running"] and after["Pid"] != before["Pid"] and after["StartedAt"] > before["StartedAt"]
    happened = lab.events(since, container=container, event=["kill", "die", "stop", "start", "restart"])
    assert [e["Action"] for e in happened] == ["start", "kill", "die", "stop", "start", "restart"]
    assert happened[1]["Actor"]["Attributes"]["signal"] == "10"
    assert happened[2]["Actor"]["Attributes"]["exitCode"] == "9"
    with pytest.raises(docker.errors.APIError) as raised:
        lab.post(f"/containers/{container}/restart", signal="BOGUS")
    lab.told(raised.value, [400], "BOGUS")
    assert lab.state(container)["Pid"] == after["Pid"]


@CASES.covers("POST /containers/{id}/kill? signal")
def a_signal(lab: Lab) -> None:
    for signal, code in (("SIGUSR1", 9), ("15", 8), ("TERM", 8), (None, 137)):
        container = _ready(lab)
        lab.api.kill(container, signal)
        assert lab.api.wait(container)["StatusCode"] == code
    for signal in ("BOGUS", "0", "99"):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.api.kill(lab.start(), signal)
        lab.told(raised.value, [400], "Invalid signal", signal)
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.kill(container, "TERM")
    lab.told(raised.value, [409], "is not running")


@CASES.covers("POST /containers/{id}/rename? name")
def a_name(lab: Lab) -> None:
    name, other = lab.name(), lab.name()
    container = lab.create(query={"name": name})
    lab.create(query={"name": other})
    since = time.time()
    lab.api.rename(container, f"{name}-new")
    assert lab.api.inspect_container(f"{name}-new")["Id"] == container
    (event,) = lab.events(since, container=container, event="rename")
    assert (event["Actor"]["Attributes"]["oldName"], event["Actor"]["Attributes"]["name"]) == (
        f"/{name}",
        f"{name}-new",
    )
    for wrong, status, word in (
        (other, 409, "already in use"),
        ("a b", 400, "invalid container name"),
        ("", 400, "empty"),
    ):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.post(f"/containers/{container}/rename", name=wrong)
        lab.told(raised.value, [status], word)
    with pytest.raises(docker.errors.NotFound):
        lab.api.inspect_container(name)


@CASES.covers("POST /containers/{id}/wait? condition")
def a_wait(lab: Lab) -> None:
    """Of what never ran, ``not-running`` is true already; ``next-exit`` is the end of its next run."""
    container = lab.create("sleep 0.3; exit 4")
    assert lab.api.wait(container, condition="not-running")["StatusCode"] == 0
    with lab.asked("POST", f"/containers/{container}/wait", condition="next-exit") as waiting:
        lab.api.start(container)
        assert waiting()["StatusCode"] == 4
    with lab.asked("POST", f"/containers/{container}/wait", condition="removed") as waiting:
        lab.api.remove_container(container)
        assert waiting()["StatusCode"] == 4
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.wait(lab.create(), condition="bogus")
    lab.told(raised.value, [400], "invalid condition", "bogus")


@CASES.covers("DELETE /containers/{id}? v force")
def a_removal(lab: Lab) -> None:
    container = lab.start("exec sleep 600", volumes=["/data"])
    (volume,) = (point["Name"] for point in lab.api.inspect_container(container)["Mounts"])
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.remove_container(container)
    lab.told(raised.value, [409], "running")
    lab.api.remove_container(container, force=True)
    assert lab.api.inspect_volume(volume)
    lab.api.remove_volume(volume)
    container = lab.create(volumes=["/data"])
    (volume,) = (point["Name"] for point in lab.api.inspect_container(container)["Mounts"])
    lab.api.remove_container(container, v=True)
    with pytest.raises(docker.errors.NotFound):
        lab.api.inspect_volume(volume)
    with pytest.raises(docker.errors.NotFound):
        lab.api.remove_container(container)


@CASES.covers("DELETE /containers/{id}? link")
def a_removal_of_a_link(lab: Lab) -> None:
    """The link goes, the containers stay."""
    name, me = lab.name(), lab.name()
    lab.start(query={"name": name})
    container = lab.create(query={"name": me}, host={"links": {name: "there"}})
    lab.api.remove_container(f"{me}/there", link=True)
    assert lab.api.inspect_container(container)["HostConfig"]["Links"] is None
    assert lab.state(name)["Running"]


@CASES.covers("DELETE /containers/{id}? link")
def a_removal_of_a_link_that_is_none(lab: Lab) -> None:
    """What is named is a container, which stays."""
    container = lab.create()
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.remove_container(container, link=True)
    lab.told(raised.value, [400, 404, 409, 500], "link")
    assert "do not exist in lamina" not in raised.value.explanation
    assert container in lab.ids()


@CASES.covers("POST /containers/prune? filters")
def a_clean_up(lab: Lab) -> None:
    name = lab.name()
    old, kept, running = (lab.create(labels={"prune": name, "kept": kept}) for kept in ("no", "yes", "no"))
    lab.api.start(lab.create("sleep 600", labels={"prune": name}))
    lab.api.start(old)
    lab.api.wait(old)
    none = lab.api.prune_containers(filters={"label": [f"prune={name}"], "until": ["1h"]})
    assert none["ContainersDeleted"] in (None, [])
    found = lab.api.prune_containers(filters={"label": [f"prune={name}"], "label!": ["kept=yes"]})
    assert sorted(found["ContainersDeleted"]) == sorted([old, running])
    assert set(lab.ids(filters={"label": f"prune={name}"})) == {kept, lab.made[-1]}
    with pytest.raises(docker.errors.APIError) as raised:
        lab.api.prune_containers(filters={"bogus": ["x"]})
    lab.told(raised.value, [400], "bogus")


@CASES.covers("GET /events? since until filters")
def events(lab: Lab) -> None:
    name = lab.name()
    since = time.time()
    container = lab.create("exit 3", query={"name": name}, labels={"a": name})
    lab.api.start(container)
    lab.api.wait(container)
    lab.until(lambda: lab.events(since, container=name, event="die"))
    lab.api.remove_container(container)
    all_of_it = lab.events(since, container=name)
    assert [e["Action"] for e in all_of_it] == ["create", "start", "die", "destroy"]
    die = all_of_it[2]
    assert (die["Actor"]["ID"], die["Actor"]["Attributes"]["exitCode"], die["scope"]) == (container, "3", "local")
    assert die["Actor"]["Attributes"]["image"] == "busybox"
    assert die["Actor"]["Attributes"]["a"] == name
    for filters, found in (
        ({"label": f"a={name}"}, 4),
        ({"label": f"a={name}", "event": ["die", "start"]}, 2),
        ({"container": container[:12], "type": "container"}, 4),
        ({"container": name, "type": "image"}, 0),
        ({"container": name, "image": "busybox"}, 4),
        ({"container": name, "image": "other"}, 0),
        ({"container": name, "scope": "local"}, 4),
        ({"container": name, "scope": "swarm"}, 0),
        ({"type": "network", "container": container}, 0),
    ):
        assert len(lab.events(since, **filters)) == found, filters
    networks = [e for e in lab.events(since, type="network") if e["Actor"]["Attributes"].get("container") == container]
    assert [e["Action"] for e in networks] == ["connect", "disconnect"]
    around = [f"{die['timeNano'] / 1e9 + shift:.9f}" for shift in (-1e-3, 1e-3)]
    with closing(lab.api.events(since=around[0], until=around[1], filters={"container": name}, decode=True)) as window:
        assert [e["Action"] for e in window] == ["die"]
    for query in ({"since": "x"}, {"since": "5", "until": "4"}, {"until": "1", "filters": as_json({"bogus": ["x"]})}):
        with pytest.raises(docker.errors.APIError) as raised:
            lab.get("/events", **query)
        lab.told(raised.value, [400])


@CASES.covers("GET /system/df? type")
def disk_use(lab: Lab) -> None:
    container = lab.start("head -c 70000 /dev/zero > /f")
    lab.api.wait(container)
    every = lab.api.df()
    assert all(every[kind] is not None for kind in ("Images", "Containers", "Volumes", "BuildCache"))
    (mine,) = (c for c in every["Containers"] if c["Id"] == container)
    assert mine["SizeRw"] >= 70000
    one = lab.get("/system/df", type="container").json()
    assert one["Containers"]
    assert not one.get("Images") and not one.get("Volumes") and not one.get("BuildCache")
    two = lab.get("/system/df", type=["image", "volume"]).json()
    assert two["Images"] and not two.get("Containers")
    with pytest.raises(docker.errors.APIError) as raised:
        lab.get("/system/df", type="bogus")
    lab.told(raised.value, [400], "bogus")
