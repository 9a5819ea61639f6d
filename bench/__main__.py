"""``python -m bench``: ROWS=run,ps chooses rows, ENGINES=lamina,docker engines, BENCH_JSON=FILE keeps the raw numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from bench import engines, report
from bench.corpus import Corpus
from bench.host import facts, scratch
from bench.rows import ROWS, Row

_ROOT = Path(__file__).parent.parent
_WARM_UPS = 1
_FEW = 3
_INSIDE = "LAMINA_BENCH_INSIDE"


def main() -> int:
    """Run the chosen rows, engines in turn: A B C A B C …"""
    if os.geteuid() != 0:
        print("the engines need root: sudo make bench", file=sys.stderr)
        return 1
    if os.environ.get(_INSIDE) is None:
        # the engines' interfaces, firewall rules and mounts live and end with namespaces of the benchmark's own
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, "-m", "bench"])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    rows = [row for row in ROWS if row.name in _chosen("ROWS", [row.name for row in ROWS])]
    names = [name for name in engines.ENGINES if name in _chosen("ENGINES", list(engines.ENGINES))]
    with scratch(_ROOT / ".lamina" / "bench") as directory, ExitStack() as running:
        print("making the corpus", flush=True)
        corpus = Corpus.make(directory / "corpus")
        started = [running.enter_context(engines.ENGINES[name](directory)) for name in names]
        for engine in started:
            engine.run("import", corpus.busybox, "busybox")
        results = [_measure(row, started, corpus, directory) for row in rows]
    machine, versions = facts(), {engine.name: engine.version for engine in started}
    if len(rows) == len(ROWS):
        report.write(_ROOT / "docs" / "benchmarks.md", machine, versions, results)
    if os.environ.get("BENCH_JSON"):
        report.write_raw(Path(os.environ["BENCH_JSON"]), machine, versions, results)
    return 0


def _chosen(variable: str, everything: list[str]) -> list[str]:
    wanted = [word for word in os.environ.get(variable, "").split(",") if word] or everything
    unknown = set(wanted) - set(everything)
    if unknown:
        raise SystemExit(f"{variable}: unknown: {', '.join(sorted(unknown))}; there are {', '.join(everything)}")
    return wanted


def _measure(row: Row, started: list[engines.Engine], corpus: Corpus, directory: Path) -> report.Figures:
    figures = report.Figures(row)
    warm_ups = _WARM_UPS if row.runs > _FEW else 0  # long work needs no warming up
    for number in range(row.runs + warm_ups):
        for engine in started:
            try:
                value = row.measure(engine, corpus)
            except (
                subprocess.CalledProcessError
            ) as error:  # one engine that fails at one row is no reason to lose all others
                print(f"{row.name}: {engine.name}: {error}: {error.stderr}", flush=True)
                value = None
            if value is not None and number >= warm_ups:
                figures.runs.setdefault(engine.name, []).append(value)
        if row.floor is not None and number >= warm_ups:
            figures.runs.setdefault("floor", []).append(row.floor(corpus, directory))
    medians = ((name, figures.median(name)) for name in figures.runs)
    print(
        f"{row.name:12}", "  ".join(f"{n} {report.shown(v, row.unit)}" for n, v in medians if v is not None), flush=True
    )
    return figures


if __name__ == "__main__":
    sys.exit(main())
