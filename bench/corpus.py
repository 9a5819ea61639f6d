"""What the engines work on: the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

_DIRECTORIES = 420
_FILES_EACH = 100
_SIZES = (100, 1_000, 4_000, 12_000, 40_000, 122_000)


@dataclass(frozen=True)
class Corpus:
    """``busybox`` is a small root file system; ``big`` is one of at least 1 GB and 40,000 entries, which also holds busybox.

    ``context`` is a build context of 5,000 small files and one of 200 MB, with a Dockerfile of 18 instructions; ``large_context`` is one
    of a file of 2 GB, ``slow_context`` has a Dockerfile of two stages that sleep for five seconds each and do not need each other.
    ``archive`` is the image of ``big`` as docker saves it.
    """

    busybox: Path
    big: Path
    context: Path
    large_context: Path
    slow_context: Path
    archive: Path

    @classmethod
    def make(cls, directory: Path) -> Corpus:
        """Write the files below *directory*."""
        directory.mkdir()
        corpus = cls(
            directory / "busybox.tar",
            directory / "big.tar",
            directory / "context",
            directory / "large",
            directory / "slow",
            directory / "archive.tar",
        )
        _make_context(corpus.context)
        _make_large_context(corpus.large_context)
        _make_slow_context(corpus.slow_context)
        with tarfile.open(corpus.busybox, "w") as tar:
            _add_busybox(tar)
        with tarfile.open(corpus.big, "w", format=tarfile.GNU_FORMAT) as tar:
            _add_busybox(tar)
            _add_files(tar)
        _make_archive(corpus.big, corpus.archive)
        return corpus


def _make_context(directory: Path) -> None:
    chance = random.Random(7)
    for number in range(5000):
        path = directory / "src" / f"d{number % 50}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(50, 3000)))
    (directory / "blob").write_bytes(chance.randbytes(200_000_000))
    runs = [f"RUN echo {number} > /run-{number}" for number in range(10)]
    lines = [
        "FROM busybox",
        "ENV A=1",
        "LABEL of=bench",
        *runs[:5],
        "COPY src /src",
        *runs[5:8],
        "COPY blob /blob",
        *runs[8:],
    ]
    (directory / "Dockerfile").write_text("\n".join([*lines, "WORKDIR /src", "EXPOSE 80", 'CMD ["sh"]']) + "\n")


def _make_large_context(directory: Path) -> None:
    directory.mkdir()
    noise = random.Random(3).randbytes(20_000_000)
    with open(directory / "large", "wb") as file:
        file.writelines(noise for _ in range(100))
    (directory / "Dockerfile").write_text("FROM busybox\nCOPY large /large\n")


def _make_slow_context(directory: Path) -> None:
    directory.mkdir()
    (directory / "Dockerfile").write_text(
        "FROM busybox AS one\nRUN sleep 5; echo 1 > /one\n"
        "FROM busybox\nRUN sleep 5; echo 2 > /two\nCOPY --from=one /one /one\n"
    )


def _make_archive(layer: Path, target: Path) -> None:
    """A docker archive whose one layer is a tar."""
    with open(layer, "rb") as file:
        diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}}
    document = json.dumps({**config, "rootfs": {"type": "layers", "diff_ids": [diff_id]}, "history": []}).encode()
    name = f"{hashlib.sha256(document).hexdigest()}.json"
    entry = {"Config": name, "RepoTags": ["big:latest"], "Layers": ["layer.tar"]}
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        _add(tar, name, tarfile.REGTYPE, document)
        tar.add(layer, "layer.tar")
        _add(tar, "manifest.json", tarfile.REGTYPE, json.dumps([entry]).encode())


def _add_busybox(tar: tarfile.TarFile) -> None:
    program = shutil.which("busybox")
    assert program is not None, "busybox-static is not installed"
    for directory in ("bin", "etc", "tmp"):
        _add(tar, directory, tarfile.DIRTYPE)
    with open(program, "rb") as file:
        _add(tar, "bin/busybox", tarfile.REGTYPE, file.read(), mode=0o755)
    for name in subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            _add(tar, f"bin/{name}", tarfile.SYMTYPE, link="busybox")


def _add_files(tar: tarfile.TarFile) -> None:
    """Files as a distribution has them: most are small, few are large; together they compress to a third, as programs and texts do."""
    chance = random.Random(12)
    noise = chance.randbytes(2 << 20)
    words = [f"{chance.randrange(1 << 20):x}" for _ in range(4000)]
    text = " ".join(chance.choice(words[: 1 << chance.randrange(6)]) for _ in range(1 << 18)).encode()
    for directory in range(_DIRECTORIES):
        _add(tar, f"srv/d{directory}", tarfile.DIRTYPE)
        for number in range(_FILES_EACH):
            size = chance.choice(_SIZES)
            source = chance.choice((noise, text, text, text, text, text))
            start = chance.randrange(len(source) - size)
            _add(tar, f"srv/d{directory}/f{number}", tarfile.REGTYPE, source[start : start + size])


def _add(
    tar: tarfile.TarFile, name: str, kind: bytes, data: bytes = b"", *, mode: int | None = None, link: str = ""
) -> None:
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.size, header.mtime = kind, link, len(data), 1_700_000_000
    header.mode = mode or (0o755 if kind == tarfile.DIRTYPE else 0o644)
    tar.addfile(header, io.BytesIO(data))
