"""The loop of a sweep: jobs from a source to a launcher, and what came of them back."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any, Protocol

from tqdm import tqdm

from dlrun.errors import StopSignal, UserError, printable
from dlrun.signals import EXIT_CODES, name_of, stop_signals
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.launchers import Ended, Launcher
from dlrun.sweep.policy import Policy
from dlrun.sweep.state import ENDED, State, state_of

LOOK = 0.5  # seconds after which a launcher is asked again, if nothing ends


class Source(Protocol):
    """Where jobs come from."""

    total: int  # jobs that it comes to, with those that have ended before
    done: int  # of these, when it was made

    def next(self) -> FrozenJob | None:
        """The next job; None if there is none to start now."""

    def ended(self, job: FrozenJob, state: State, summary: Mapping[str, Any]) -> None:
        """What became of a job that `next` gave."""


class Driver:
    """Runs a source's jobs until there are none, or somebody says stop."""

    def __init__(self, folder: SweepFolder, source: Source, launcher: Launcher, policy: Policy):
        self.folder, self.source, self.launcher, self.policy = folder, source, launcher, policy
        self.running: dict[int, tuple[FrozenJob, float]] = {}
        self.again: deque[FrozenJob] = deque()
        self.tries: dict[int, int] = {}
        self.failed: dict[int, str] = {}
        self.counted = source.done
        self.stopping = False  # no further job is started
        self.asked = self.told = False  # whether somebody said stop, and whether the launcher knows
        self.bar = tqdm(
            total=source.total,
            initial=source.done,
            unit=" jobs",
            leave=False,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def run(self) -> int:
        """Returns the exit code: 0, 1 if a job failed, 130 or 143 if somebody said stop."""
        with stop_signals(self._ask, self._leave) as received, closing(self.launcher), closing(self.bar):
            while True:
                if self.asked and not self.told:  # once: jobs that are saving aren't to be killed by a second SIGTERM
                    self.told = self.stopping = True
                    self.launcher.stop()
                try:
                    self._fill()
                    if not self.running:
                        break
                    for ended in self.launcher.wait(LOOK):
                        self._ended(ended)
                except (KeyboardInterrupt, StopSignal) as stop:  # of a job in this very process
                    received.append(signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
                    self.stopping = True
        if received:
            return EXIT_CODES[received[0]]
        return 1 if self.failed else 0

    def _ask(self) -> None:
        self.asked = True

    def _leave(self) -> None:
        """Ctrl-C for the second time."""
        if not self.told:
            self.launcher.stop()
        self.launcher.stop()
        with suppress(UserError, OSError):
            self.folder.update(status="interrupted")

    def _fill(self) -> None:
        while not self.stopping and len(self.running) < self.launcher.slots:
            job = self.again.popleft() if self.again else self.source.next()
            if job is None:
                return
            self.tries[job.number] = self.tries.get(job.number, 0) + 1
            self.folder.note(job.number, "started", attempt=self.tries[job.number])
            self.running[job.number] = (job, time.monotonic())
            self.launcher.start(job)

    def _ended(self, ended: Ended) -> None:
        job, began = self.running.pop(ended.number)
        state, summary = self._outcome(job, ended)
        seconds = time.monotonic() - began
        if state == "interrupted" and ended.message:  # such as why it wasn't queued again
            summary = {**summary, "error": ended.message}
        error = summary.get("error") if state != "done" else None
        self.folder.note(job.number, "ended", state=state, code=ended.code, seconds=round(seconds, 3), error=error)
        if state in ("failed", "interrupted") and not self.asked:
            tries = self.tries[job.number]
            if self.policy.on_error == "retry" and tries <= self.policy.max_retries:
                self._say(f"{_short(job.label)}: {_one_line(error)}; again ({tries} of {self.policy.max_retries})")
                self.again.append(job)
                return
            self.failed[job.number] = str(error)
            if self.policy.on_error == "stop" and not self.stopping:
                self.stopping = True
                self.launcher.withdraw()
        if state == "pending" or (state == "interrupted" and self.asked):
            return
        self.source.ended(job, state, summary)
        self.bar.total = self.source.total
        self.bar.update()
        self.counted += 1
        width = len(str(self.source.total))
        told = _result(state, summary)
        self._say(f"[{self.counted:{width}}/{self.source.total}] {_short(job.label)}  {told}  {seconds:.1f} s")

    def _outcome(self, job: FrozenJob, ended: Ended) -> tuple[State, dict[str, Any]]:
        """What the job's folder says, and what it couldn't say any more."""
        run = self.folder.run(job)
        state = state_of(run)
        if state == "pending" and self.asked:  # it was on its way to begin
            return "interrupted", {}
        if state == "pending" and self.stopping:  # it was taken back
            return state, {}
        if state in (*ENDED, "failed") or (state == "interrupted" and self.asked):
            return state, run.read_summary()
        if state == "interrupted" and run.read_summary()["status"] == "preempted":
            return state, run.read_summary()
        error = ended.message or _why(ended.code)
        console = run.path / "console.log"
        hint = f"; see {console}" if console.exists() else ""
        facts = {"status": "failed", "error": f"{error}{hint}", "exit_code": _exit_code(ended.code)}
        if state == "running":  # another process has its folder, one that the launcher has lost sight of
            return "failed", facts
        with suppress(UserError, OSError):  # it may have died before it had a summary
            return "failed", run.update_summary(**facts)
        return "failed", facts

    def _say(self, line: str) -> None:
        if self.bar.disable:
            print(line, flush=True)
        else:
            self.bar.write(line)


def _short(label: str) -> str:
    """Without the digits that a search draws and nobody reads; jobs.jsonl has them."""
    return re.sub(r"\d+\.\d{5,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", label)


def _one_line(error: Any) -> str:
    return printable(" ".join(str(error).split()))


def _why(code: int | None) -> str:
    if code is None or code >= 0:
        return "the process ended without a word" + (f", exit code {code}" if code else "")
    name = name_of(-code)
    return f"killed by {name}" + (" (out of memory, if nobody else did it)" if name == "SIGKILL" else "")


def _exit_code(code: int | None) -> int:
    return 1 if not code else code if code > 0 else 128 - code


def _result(state: State, summary: Mapping[str, Any]) -> str:
    if state not in ENDED:
        return f"{state}: {_one_line(summary.get('error'))}"
    best = summary.get("best") or {}
    shown = [f"{name} {value:.4f}" for name, value in best.items() if name.startswith("val/") and value is not None]
    return "  ".join(["pruned"] * (state == "pruned") + shown)
