"""Logs give out what conmon wrote, and no more of it than was asked for."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing
from pathlib import Path

import pytest

from lamina.container.detach import DetachKeys, parse_detach_keys
from lamina.container.log_files import compress, open_log, paths, set_aside, total_bytes, trim
from lamina.container.log_lines import LogLine
from lamina.container.logs import LogQuery, read_logs
from lamina.container.times import InvalidTime, parse_moment, parse_rfc3339, rfc3339

STAMP = "2026-11-23T10:00:{:02}.000000001+00:00"


def write(path: Path, *records: tuple[str, str, str]) -> None:
    path.write_text(
        "".join(f"{STAMP.format(i)} {stream} {tag} {text}\n" for i, (stream, tag, text) in enumerate(records))
    )


async def lines_of(path: Path, **query: object) -> list[LogLine]:
    async def no_more() -> bool:
        return False

    with closing(open_log(path)) as log:
        return [line async for line in read_logs(log, LogQuery(**query), no_more)]  # type: ignore[arg-type]


async def read(path: Path, **query: object) -> str:
    return b"".join([line.text for line in await lines_of(path, **query)]).decode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    write(path, *(("stderr" if n % 3 == 0 else "stdout", "F", f"line {n}") for n in range(50)))
    return path


@pytest.mark.parametrize("count", [0, 1, 2, 49, 50, 51])
async def test_tail_gives_exactly_that_many_lines(log: Path, count: int) -> None:
    lines = (await read(log, tail=count)).splitlines()
    assert lines == [f"line {n}" for n in range(50)][max(0, 50 - count) :]


async def test_tail_counts_the_wanted_stream_alone(log: Path) -> None:
    assert (await read(log, tail=2, stdout=False)).splitlines() == ["line 45", "line 48"]


async def test_tail_of_a_log_that_is_longer_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, *(("stdout", "F", "x" * 5000 + str(n)) for n in range(60)))
    assert [line[-2:] for line in (await read(path, tail=40)).splitlines()] == [f"{n}" for n in range(20, 60)]


async def test_pieces_of_a_line_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, ("stdout", "P", "one "), ("stdout", "F", "line"), ("stdout", "P", "no end"))
    assert await read(path) == "one line\nno end"


async def test_a_line_in_pieces_is_one_that_ends_with_its_last(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, ("stdout", "P", "a"), ("stderr", "F", "error"), ("stdout", "P", "b"), ("stdout", "F", "c"))
    assert [(line.stream, line.text, line.time[17:19]) for line in await lines_of(path)] == [
        (2, b"error\n", "01"),
        (1, b"abc\n", "03"),
    ]


async def test_the_last_line_has_its_beginning_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, ("stdout", "P", "a"), ("stderr", "F", "error"), ("stdout", "F", "b"))
    assert await read(path, tail=1) == "ab\n"
    assert await read(path, since_ns=parse_rfc3339("2026-11-23T10:00:02Z")) == "ab\n"


async def test_a_line_is_cut_where_docker_cuts_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, *(("stdout", "P", "x" * 8191) for _ in range(5)), ("stdout", "F", "y"))
    assert [len(line.text) for line in await lines_of(path)] == [16384, 16384, 5 * 8191 - 2 * 16384 + 2]


async def test_who_follows_sees_an_unfinished_line_and_then_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, ("stdout", "P", "Name: "))
    more = iter([True, False])

    async def next_change() -> bool:
        with open(path, "a") as file:
            file.write(f"{STAMP.format(9)} stdout F x\n")
        return next(more)

    with closing(open_log(path)) as log:
        lines = [line async for line in read_logs(log, LogQuery(follow=True, tail=10), next_change)]
    assert [(line.text, line.goes_on) for line in lines] == [(b"Name: ", False), (b"x\n", True), (b"x\n", False)]


async def test_since_and_until(log: Path) -> None:
    since = parse_rfc3339("2026-11-23T10:00:47Z")
    assert (await read(log, since_ns=since)).splitlines() == ["line 47", "line 48", "line 49"]
    assert (await read(log, until_ns=parse_rfc3339("2026-11-23T10:00:01Z"))).splitlines() == ["line 0"]


async def test_a_container_that_never_ran_has_no_lines(tmp_path: Path) -> None:
    assert await read(tmp_path / "none") == ""


@pytest.mark.parametrize("pieces", [[b"ab\x10\x11cd"], [b"ab\x10", b"\x11cd"]])
def test_detach_keys_are_found_in_any_pieces(pieces: list[bytes]) -> None:
    keys = DetachKeys(None)
    passed, found = b"", False
    for piece in pieces:
        data, found = keys.feed(piece)
        passed += data
    assert (passed, found) == (b"ab", True)


def test_half_a_detach_sequence_reaches_the_process() -> None:
    assert DetachKeys(None).feed(b"\x10x\x10\x10") == (b"\x10x\x10", False)
    assert parse_detach_keys("a,ctrl-c,DEL") == b"a\x03\x7f"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.5", 1_500_000_000), ("10", 10**10), ("1970-01-01T00:00:01Z", 10**9), ("1m30s", 10**12 - 90 * 10**9)],
)
def test_moments(text: str, value: int) -> None:
    assert parse_moment(text, now_ns=10**12) == value


def test_a_wrong_moment_is_refused() -> None:
    with pytest.raises(InvalidTime):
        parse_moment("yesterday")


def test_times_are_written_as_go_writes_them() -> None:
    assert rfc3339(1_500_000_000) == "1970-01-01T00:00:01.5Z"
    assert rfc3339(0) == "1970-01-01T00:00:00Z"


async def test_lines_since_a_time_are_found_in_a_log_of_many_blocks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    begin = parse_rfc3339("2026-11-23T10:00:00Z")
    with open(path, "w") as file:
        for number in range(20_000):
            stamp = rfc3339(begin + number * 1_000_000_000 + 1).replace("Z", "+00:00")
            file.write(f"{stamp} stdout F {'x' * (number % 90)} {number}\n")
    for first in (0, 1, 9_999, 19_999, 20_000):
        lines = (await read(path, since_ns=begin + first * 1_000_000_000)).splitlines()
        assert [int(line.split()[-1]) for line in lines] == list(range(first, 20_000))


async def test_a_log_is_read_without_holding_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, *(("stderr", "F", "x" * 50) for _ in range(50)))
    path.write_bytes(path.read_bytes() * 400)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(others())
    assert await read(path, stderr=False) == ""
    other.cancel()
    assert turns > 5


async def test_a_line_that_is_longer_than_a_block_comes_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, ("stdout", "F", "a"), ("stdout", "F", "y" * 700_000), ("stdout", "F", "b"))
    assert await read(path) == "a\n" + "y" * 700_000 + "\nb\n"
    assert await read(path, tail=2) == "y" * 700_000 + "\nb\n"


async def test_following_a_log_whose_last_line_is_cut_off_waits_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(f"{STAMP.format(0)} stdout F a\n{STAMP.format(1)} stdout F cut")
    asked = 0

    async def next_change() -> bool:
        nonlocal asked
        asked += 1
        return asked < 3

    with closing(open_log(path)) as log:
        lines = [line.text async for line in read_logs(log, LogQuery(follow=True), next_change)]
    assert (lines, asked) == ([b"a\n"], 3)


async def test_a_log_of_several_files_is_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for part in range(4):
        path.write_text("".join(f"{STAMP.format(part)} stdout F {part}-{n}\n" for n in range(5000)))
        if part < 3:
            set_aside(path)
    expected = [f"{part}-{n}" for part in range(4) for n in range(5000)]
    assert (await read(path)).splitlines() == expected
    assert (await read(path, tail=7000)).splitlines() == expected[-7000:]
    since = parse_rfc3339("2026-11-23T10:00:02Z")
    assert (await read(path, since_ns=since)).splitlines() == expected[10_000:]


async def test_a_line_may_begin_in_one_file_and_end_in_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, ("stdout", "F", "a"), ("stdout", "P", "one "))
    set_aside(path)
    write(path, ("stderr", "F", "e"), ("stdout", "F", "line"))
    assert await read(path) == "a\ne\none line\n"
    assert await read(path, tail=1) == "one line\n"


async def test_who_follows_reads_on_in_the_next_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, ("stdout", "F", "before"))
    rounds = iter(range(3))

    with closing(open_log(path)) as log:

        async def next_change() -> bool:
            number = next(rounds, None)
            if number is None:
                return False
            set_aside(path)
            write(path, ("stdout", "F", f"after {number}"))
            trim(path, 1, 0)
            assert log.grow(os.open(path, os.O_RDONLY))
            return True

        lines = [line.text async for line in read_logs(log, LogQuery(follow=True), next_change)]
    assert lines == [b"before\n", b"after 0\n", b"after 1\n", b"after 2\n"]


async def test_what_is_too_much_goes_at_a_line_s_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for part in range(4):
        write(path, *(("stdout", "F", f"{part}-{n}") for n in range(50)))
        set_aside(path)
    trim(path, 3, 4000)
    assert total_bytes(path) <= 8000
    kept = (await read(path)).splitlines()
    assert kept[-50:] == [f"3-{n}" for n in range(50)]
    assert kept == [f"{part}-{n}" for part in range(4) for n in range(50)][-len(kept) :]
    trim(path, 1, 0)
    assert await read(path) == ""


async def test_compressed_files_are_read_as_what_they_were(log: Path) -> None:
    set_aside(log)
    write(log, ("stdout", "F", "second"))
    set_aside(log)
    write(log, ("stdout", "F", "third"))
    plain = total_bytes(log)
    compress(log)
    assert [path.name for path in paths(log)] == ["log.2.gz", "log.1.gz", "log"]
    assert total_bytes(log) < plain
    assert (await read(log)).splitlines() == [*(f"line {n}" for n in range(50)), "second", "third"]
    set_aside(log)
    trim(log, 3, 1 << 20)
    assert [path.name for path in paths(log)] == ["log.2.gz", "log.1"]


async def test_a_file_whose_compression_was_broken_off_is_read_once(log: Path) -> None:
    set_aside(log)
    plain = (log.parent / "log.1").read_bytes()
    compress(log)
    (log.parent / "log.1").write_bytes(plain)  # the daemon was killed before it removed it
    (log.parent / "log.2.cut").write_bytes(b"half")
    assert len((await read(log)).splitlines()) == 50
