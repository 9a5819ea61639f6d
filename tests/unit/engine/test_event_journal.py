"""Events that were written down are read again, and the oldest are given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.engine import event_journal
from lamina.engine.event_journal import EventJournal
from lamina.engine.events import Event, EventLog
from lamina.oci.digest import Digest

_DIGEST = Digest("sha256:" + "3" * 64)


def _event(number: int) -> Event:
    return Event("container", "start", str(number), {"name": "a"}, number)


def test_what_was_appended_is_read_in_its_order(tmp_path: Path) -> None:
    journal = EventJournal(tmp_path / "events")
    assert list(journal.read()) == []
    journal.append([_event(1), _event(2)])
    journal.append([Event("container", "start", _DIGEST, {"name": "a"}, 3)])
    assert list(EventJournal(tmp_path / "events").read()) == [
        _event(1),
        _event(2),
        Event("container", "start", _DIGEST, {"name": "a"}, 3),
    ]


def test_half_a_line_is_passed_over_and_the_next_is_whole(tmp_path: Path) -> None:
    journal = EventJournal(tmp_path / "events")
    journal.append([_event(1), _event(2)])
    torn = (tmp_path / "events").read_bytes()[:-9]
    (tmp_path / "events").write_bytes(torn)
    journal.append([_event(3)])
    assert list(journal.read()) == [_event(1), _event(3)]


def test_the_files_do_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_journal, "_FULL_BYTES", 1000)
    journal = EventJournal(tmp_path / "events")
    for number in range(200):
        journal.append([_event(number)])
    numbers = [int(event.actor_id) for event in journal.read()]
    assert numbers == list(range(numbers[0], 200))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3000


async def test_events_that_cannot_be_written_down_are_told_all_the_same() -> None:
    def write(events: object) -> None:
        raise OSError("no space")

    log = EventLog([_event(1)], write)
    log.publish(_event(2))
    told = [event async for event in log.follow(lambda event: True, since_ns=0, until_ns=5)]
    await log.close()
    assert told == [_event(1), _event(2)]
