"""Handlers of binfmt_misc, as the kernel's files describe them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.linux import binfmt

QEMU_AARCH64 = (
    "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n"
    "magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
)


@pytest.mark.parametrize(
    ("handler", "architecture", "expected"),
    [
        (QEMU_AARCH64, "arm64", True),
        (QEMU_AARCH64, "arm", False),
        (QEMU_AARCH64, "s390x", False),
        (QEMU_AARCH64.replace("enabled", "disabled"), "arm64", False),
        ("enabled\ninterpreter /x\nflags: \nextension .py\n", "arm64", False),
        ("enabled\ninterpreter /x\nflags: \noffset 18\nmagic b700\n", "arm64", True),
        ("enabled\ninterpreter /x\nflags: \noffset 18\nmagic zz\n", "arm64", False),
        ("enabled\ninterpreter /x\nflags: \noffset 4000\nmagic b700\n", "arm64", False),
        ("", "arm64", False),
    ],
)
def test_a_handler_takes_what_its_magic_fits(handler: str, architecture: str, expected: bool) -> None:
    header = binfmt.elf_header(architecture)
    assert header is not None
    assert binfmt.matches(handler, header) is expected


def test_the_header_is_that_of_this_machine_s_own_programs() -> None:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    if machine is None:
        pytest.skip(f"no name is known for {os.uname().machine}")
    header = binfmt.elf_header(machine)
    assert header is not None
    real = Path("/proc/self/exe").read_bytes()[:24]
    assert (real[:7], real[18:24]) == (header[:7], header[18:24])


def test_a_host_runs_its_own_architecture_and_no_unknown_one() -> None:
    assert binfmt.can_run("amd64", host="amd64")
    assert binfmt.can_run("386", host="amd64")
    assert not binfmt.can_run("vax", host="amd64")


def test_the_kernel_s_handlers_can_be_listed_without_a_mount() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a mount of binfmt_misc")
    before = Path("/proc/self/mountinfo").read_text()
    assert all(text == "" or "interpreter" in text for text in binfmt.handlers())
    assert Path("/proc/self/mountinfo").read_text() == before
