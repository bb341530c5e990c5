"""What does a sweep cost beside its trainings, and what do jobs side by side save?

Each sweep is `dlrun -m`, a process of its own, of trainings on digits. Side by side: from the first job's start to the
last one's end, so without what the sweep does before, against the same jobs one after the other. A job: the time from
one start to the next, where they run one after the other, against the same command by hand. Beside each stands the
processor time that all of it took, the sweep's own included, which others on the machine change less.

    python benchmarks/sweeps.py [--rounds 3] [--jobs 8] [--model cnn]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from measure import arguments, interleaved, ratio, report

from dlrun.cores import cores

ROOT = Path(__file__).resolve().parent.parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Command:
    """`dlrun WORDS` in an empty folder, with the threads that it takes by itself."""

    def __init__(self, top: Path, *words: str):
        self.top, self.words, self.cpu = top, words, list[float]()
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.environment = {name: value for name, value in os.environ.items() if name not in THREADS}
        self.environment["PYTHONPATH"] = path

    def run(self) -> tuple[Path, float]:
        """The folder, and the seconds from the process's start to its end."""
        folder = Path(tempfile.mkdtemp(dir=self.top))
        command = [sys.executable, "-m", "dlrun", *self.words]
        with (folder / "printed").open("wb") as file:
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=folder, env=self.environment, stdout=file, stderr=file)
            _, status, usage = os.wait4(process.pid, 0)  # and of all whose end it has waited for
            seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command} ended with {process.returncode}:\n{(folder / 'printed').read_text()}")
        self.cpu.append(usage.ru_utime + usage.ru_stime)
        return folder, seconds

    def __call__(self) -> float:
        return self.run()[1]


class Sweep(Command):
    """Called, it gives the seconds from the first job's start to the last one's end."""

    def __call__(self) -> float:
        times = {"started": list[float](), "ended": list[float]()}
        (events,) = self.run()[0].glob("multirun/*/*/events.jsonl")
        for row in map(json.loads, events.read_text().splitlines()):
            times[row["event"]].append(datetime.fromisoformat(row["time"]).timestamp())
        return max(times["ended"]) - min(times["started"])


def side_by_side(top: Path, args: argparse.Namespace) -> None:
    number, one = args.jobs, "one after the other"
    words = ("-m", f"seed=range({number})", f"model={args.model}", "device=cpu", "tracking=none")
    cases = {one: Sweep(top, *words, "hydra.launcher.jobs=1")}
    for at_once in (cores(), number):
        cases[f"{at_once} at a time"] = Sweep(top, *words, f"hydra.launcher.jobs={at_once}")
    seconds = interleaved(dict[str, Callable[[], float]](cases), args.rounds, warmup=0)
    cpu = {name: sweep.cpu for name, sweep in cases.items()}
    rows = [
        (name, statistics.median(seconds[name]), ratio(seconds, name, one), statistics.median(cpu[name]))
        for name in cases
    ]
    header = (f"{number} trainings of {args.model} on digits", "seconds", "ratio", "of CPU")
    report("sweeps: side by side", header, rows, rounds=args.rounds, usable_cores=cores())


def one_job(top: Path, args: argparse.Namespace) -> None:
    words, several = (f"model={args.model}", "device=cpu", "tracking=none", "trainer.max_epochs=2"), 3
    single, sweep = (Sweep(top, "-m", f"seed=range({n})", *words, "hydra.launcher.jobs=1") for n in (1, 1 + several))
    command = Command(top, "seed=0", *words)
    by_hand, job = "by hand", "a job of a sweep"
    cases = {by_hand: command, "one": single, job: lambda: sweep() / (1 + several)}
    seconds = interleaved(cases, args.rounds, warmup=0)
    cpu = {by_hand: command.cpu, job: [(b - a) / several for a, b in zip(single.cpu, sweep.cpu, strict=True)]}
    rows: list[tuple[str, float, float, float, float]] = []
    for name in (by_hand, job):
        more = [
            statistics.median(a - b for a, b in zip(taken[name], taken[by_hand], strict=True))
            for taken in (seconds, cpu)
        ]
        rows.append((name, statistics.median(seconds[name]), more[0], statistics.median(cpu[name]), more[1]))
    header = ("a training of two epochs", "seconds", "more", "of CPU", "more of CPU")
    report("sweeps: one job", header, rows, rounds=args.rounds)


def main() -> None:
    words = arguments(__doc__, rounds=3)
    words.add_argument("--jobs", type=int, default=8)
    words.add_argument("--model", default="cnn")
    words.add_argument("--only", choices=["side_by_side", "one_job"])
    args = words.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as top:
        if args.only != "one_job":
            side_by_side(Path(top), args)
        if args.only != "side_by_side":
            one_job(Path(top), args)


if __name__ == "__main__":
    main()
