"""How far pulls and pushes are, as docker tells it (moby, pkg/streamformatter and pkg/jsonmessage)."""

from __future__ import annotations

from typing import Any

from lamina.api.sizes import human_size
from lamina.image.pull import LayerProgress, Pulled
from lamina.image.push import PushProgress
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.reference import Reference
from lamina.registry.outgoing import Step

Fields = dict[str, Any]
_BAR = 50


class PullLines:
    """The lines of one image's pull."""

    def __init__(self, name: Reference) -> None:
        self._name = name
        self._shown: dict[Digest, str] = {}
        self._begun = False

    def layer(self, progress: LayerProgress) -> list[Fields]:
        """What a layer's progress adds."""
        lines = self._begin()
        last = self._shown.get(progress.digest, "")
        self._shown[progress.digest] = progress.stage
        match progress.stage:
            case "exists":
                return [*lines, _line("Already exists", progress.digest)]
            case "waiting":
                return lines if last else [*lines, _line("Pulling fs layer", progress.digest)]
            case "downloading":
                return [*lines, _line("Downloading", progress.digest, progress.done, progress.total)]
            case "extracting":
                return [
                    *lines,
                    *self._downloaded(last, progress),
                    _line("Extracting", progress.digest, progress.done, progress.total),
                ]
            case "complete" if last != "complete":
                return [*lines, *self._downloaded(last, progress), _line("Pull complete", progress.digest)]
        return lines

    def _downloaded(self, last: str, progress: LayerProgress) -> list[Fields]:
        if last in ("extracting", "complete"):
            return []
        return [_line("Verifying Checksum", progress.digest), _line("Download complete", progress.digest)]

    def end(self, pulled: Pulled) -> list[Fields]:
        """How it ended."""
        state = "Image is up to date" if pulled.was_here else "Downloaded newer image"
        return [
            *self._begin(),
            {"status": f"Digest: {pulled.digest}"},
            {"status": f"Status: {state} for {self._name.familiar}"},
        ]

    def _begin(self) -> list[Fields]:
        if self._begun:
            return []
        self._begun = True
        return [{"status": f"Pulling from {self._name.path}", "id": str(self._name.digest or self._name.tag)}]


def push_line(progress: PushProgress) -> Fields:
    """What a layer's progress looks like."""
    match progress.step:
        case Step.PUSHING:
            return _line("Pushing", progress.diff_id, progress.done, progress.total)
        case Step.PUSHED:
            return _line("Pushed", progress.diff_id)
        case Step.EXISTS:
            return _line("Layer already exists", progress.diff_id)
        case Step.MOUNTED:
            return _line(f"Mounted from {progress.source}", progress.diff_id)
        case Step.WAITING:
            return _line("Waiting", progress.diff_id)
    return _line("Preparing", progress.diff_id)


def push_end(name: Reference, pushed: Descriptor) -> list[Fields]:
    """How a push ended, for people and for programs."""
    aux = {"Tag": name.tag, "Digest": str(pushed.digest), "Size": pushed.size}
    return [
        {"status": f"{name.tag}: digest: {pushed.digest} size: {pushed.size}"},
        {"progressDetail": {}, "aux": aux},
    ]


def _line(status: str, digest: Digest, done: int | None = None, total: int = 0) -> Fields:
    if done is None:
        return {"status": status, "progressDetail": {}, "id": digest.hex[:12]}
    detail = {"current": done, "total": total}
    return {"status": status, "progressDetail": detail, "progress": _bar(done, total), "id": digest.hex[:12]}


def _bar(done: int, total: int) -> str:
    if total <= 0:
        return f"{human_size(done, 4):>8}"
    full = min(_BAR, done * _BAR // total)
    arrow = ">" if full < _BAR else ""
    return f"[{'=' * full}{arrow}{' ' * (_BAR - full - len(arrow))}]  {human_size(done, 4):>8}/{human_size(total, 4)}"
