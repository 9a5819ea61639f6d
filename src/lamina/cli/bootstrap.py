"""``bootstrap``: a base image from a distribution's packages, where there is no registry at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from lamina.cli.archives import with_progress
from lamina.cli.grammar import Parser, UsageError
from lamina.cli.images import import_stream
from lamina.client.client import Client
from lamina.errors import Unavailable

_READ_BYTES = 1 << 20
# distribution → version → suite; mmdebstrap knows the archive of each
_SUITES = {
    "debian": {
        "11": "bullseye",
        "12": "bookworm",
        "13": "trixie",
        "latest": "bookworm",
        "stable": "stable",
        "sid": "sid",
    },
    "ubuntu": {"22.04": "jammy", "24.04": "noble", "latest": "noble"},
}
# what docker's own base images leave out: lists and caches that are stale at once
_CUSTOMIZE = (
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/cache/ldconfig/aux-cache',
    '--customize-hook=rm -f "$1"/var/log/*.log "$1"/var/log/apt/* "$1"/etc/hostname "$1"/etc/resolv.conf',
)


class BootstrapFailed(Unavailable):
    """mmdebstrap did not succeed."""

    def __init__(self, code: int, output: str) -> None:
        super().__init__(f"mmdebstrap failed with exit code {code}:\n{output}")


def bootstrap(client: Client, argv: list[str]) -> int:
    """``lamina bootstrap debian:12``."""
    parser = Parser("bootstrap", "[OPTIONS] DISTRIBUTION:VERSION")
    parser.values("--include", help="further packages, separated by commas")
    parser.value("--mirror", help="the archive to take packages from")
    parser.value("--variant", default="minbase", help="mmdebstrap's variant (default minbase)")
    parser.value("-t", "--tag", help="the image's name (default: as the distribution's)")
    parser.flag("-q", "--quiet", help="say only the image's ID")
    parser.add_argument("distribution")
    options = parser.parse(argv)
    name, suite = _suite(options.distribution)
    if shutil.which("mmdebstrap") is None:
        raise UsageError("mmdebstrap is not installed; install it: apt-get install mmdebstrap")
    if os.geteuid() != 0:
        raise UsageError("bootstrap needs root; try: sudo lamina bootstrap")
    command = ["mmdebstrap", "--mode=root", f"--variant={options.variant}", "--format=tar", *_CUSTOMIZE]
    command += [f"--include={packages}" for packages in options.include]
    command += [suite, "-", *([options.mirror] if options.mirror else [])]
    tag = options.tag or options.distribution
    if not options.quiet:
        print(f"bootstrapping {tag} from {name} {suite}", file=sys.stderr)
    chunks = with_progress(_packages(command, quiet=options.quiet), f"bootstrapping {tag}", None)
    print(import_stream(client, chunks, tag, ['CMD ["bash"]'], f"Bootstrapped from {name} {suite}"))
    return 0


def _suite(text: str) -> tuple[str, str]:
    name, _, version = text.partition(":")
    suites = _SUITES.get(name)
    if suites is None:
        raise UsageError(f"unknown distribution {name!r}: expected one of {', '.join(_SUITES)}")
    suite = suites.get(version or "latest") or (version if version in suites.values() else None)
    if suite is None:
        raise UsageError(f"unknown version {version!r} of {name}: expected one of {', '.join(suites)}")
    return name, suite


def _packages(command: list[str], *, quiet: bool) -> Iterator[bytes]:
    """mmdebstrap's tar in pieces; what it says goes to standard error as it comes, shortened to what it does."""
    import threading

    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []

    def listen(lines: Iterator[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            said.append(text)
            if not quiet and text.startswith("I: "):
                print(f"  {text[3:]}", file=sys.stderr)

    listener = threading.Thread(target=listen, args=(iter(process.stderr),), daemon=True)
    listener.start()
    try:
        yield from iter(lambda: process.stdout.read(_READ_BYTES), b"")  # type: ignore[union-attr]
        code = process.wait()
        listener.join()
        if code != 0:
            raise BootstrapFailed(code, "\n".join(said[-15:]))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


COMMANDS = {"bootstrap": bootstrap}
