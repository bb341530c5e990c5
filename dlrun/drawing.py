"""The pictures that every run leaves, drawn by a process beside it: what goes wrong there is a warning and no more."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlrun.atomic import atomic_write, remove_partial
from dlrun.findings import Findings
from dlrun.history import better_end, read
from dlrun.runfolder import RunFolder, finite
from dlrun.tracking import Quiet
from dlrun.viz.drawer import AT_ONCE, END, FOUND, NEW

log = logging.getLogger("dlrun")

PATIENCE = 30.0  # seconds that a run waits for its pictures when it has ended
HURRY = 10.0  # and one that was asked to stop, which isn't given much time
FIRST = 3.0  # of these, for the process beside the run: in the middle of a drawing that gives way it gets nowhere
NAMES = ("curves", *FOUND)


class Drawing(Quiet):
    """Draws a run's curves again and again, told of its epochs as trackers are, and everything at its end.

    A process beside the run does that. If it dies or hangs, a second one draws all at the end; if that doesn't help
    either, the run ends without.
    """

    def __init__(self, folder: Path, monitor: str, mode: str, title: str):
        self.folder = folder / "plots"
        self.words = [str(folder.absolute()), monitor, mode, title]
        self.process: subprocess.Popen[bytes] | None = None
        self.warned = False

    def start(self) -> None:
        """Begin: what an earlier part of the run found in its test is of that part."""
        forget(self.folder)
        self.process = self._begin()

    def rewind(self, epoch: int, step: int, rollbacks: int) -> None:
        self._ask()

    def epoch(self, row: dict[str, float | None]) -> None:
        self._ask()

    def _ask(self) -> None:
        """For new curves. Never waits: what can't be sent, since the other process hangs, is lost."""
        if self.process is None or self.process.stdin is None:
            return
        try:
            os.write(self.process.stdin.fileno(), NEW)
        except BlockingIOError:
            pass
        except OSError:
            process, self.process = self.process, None
            self._warn(f"{_last_words(process, process.communicate()[0])}; the curves are drawn at the end")

    def end(self, asked_to_stop: Callable[[], bool]) -> list[Path]:
        """All pictures: those of the findings, too, if there was a test. Returns those that there are.

        Waits for them, not long if somebody asks the run to stop. Raises nothing.
        """
        hurried = asked_to_stop()
        deadline = time.monotonic() + (HURRY if hurried else PATIENCE)

        def in_vain() -> bool:
            return time.monotonic() > deadline or (asked_to_stop() and not hurried)

        first = time.monotonic() + (FIRST / 3 if hurried else FIRST)
        try:
            drawn = self._awaited(self.process, lambda: in_vain() or time.monotonic() > first)
            if not drawn and not in_vain():
                drawn = self._awaited(self._begin(AT_ONCE), in_vain)
            if not drawn:
                self._warn("not all of them could be drawn in time")
            remove_partial(self.folder)
        except OSError as error:
            self._warn(str(error))
        return [path for name in NAMES if (path := self.folder / f"{name}.png").exists()]

    def _begin(self, *more: str) -> subprocess.Popen[bytes] | None:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dlrun.viz.drawer", *self.words, *more],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C isn't for it
                env={**os.environ, **threads, "PYTHONPATH": path},
            )
        except (OSError, ValueError) as error:
            self._warn(f"their process couldn't be started ({error})")
            return None
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def note(self, findings: Callable[[], Findings]) -> None:
        """Write down what the test found: the pictures are made of that, now or later. Raises nothing."""
        try:
            found = findings()
            self.folder.mkdir(exist_ok=True)
            for name, content in found.items():
                text = json.dumps(finite(content), ensure_ascii=False)
                with atomic_write(self.folder / f"{name}.json") as file:
                    file.write(text.encode(errors="backslashreplace") + b"\n")
        except Exception as error:
            log.debug("findings", exc_info=True)
            self._warn(f"what the test found can't be told ({type(error).__name__}: {error})")

    def _awaited(self, process: subprocess.Popen[bytes] | None, in_vain: Callable[[], bool]) -> bool:
        """Let it finish, and log what it has to say; False if it doesn't, or there is none."""
        if process is None:
            return False
        output, last = None, END
        while output is None and not in_vain():
            with suppress(subprocess.TimeoutExpired):
                output = process.communicate(last, timeout=0.05)[0]
            last = None  # type: ignore[assignment]
        if output is None:
            process.kill()
            process.communicate()
            return False
        try:
            for said in json.loads(output.splitlines()[-1]):
                self._warn(said)
        except (ValueError, IndexError):
            self._warn(_last_words(process, output))
            return False
        return True

    def _warn(self, what: str) -> None:
        """Once: a disk that is full is said for each picture."""
        log.log(logging.DEBUG if self.warned else logging.WARNING, "pictures: %s", what)
        self.warned = True


def _last_words(process: subprocess.Popen[bytes], output: bytes) -> str:
    lines = output.decode(errors="replace").split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "")
    return f"the process that draws them has ended (exit code {process.returncode}{', ' + said if said else ''})"


def draw_missing(folder: RunFolder, config: Mapping[str, Any]) -> None:
    """The pictures of a run that was killed when all but these was done. Raises nothing."""
    try:
        there = {path.name for path in folder.plots.glob("*")}
        worst = json.loads((folder.plots / "mistakes.json").read_text("utf-8")) if "mistakes.json" in there else {}
        named = {name for name in FOUND if f"{name}.json" in there and (name != "mistakes" or worst["mistakes"])}
        missing = [name for name in {"curves", *named} if f"{name}.png" not in there]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if config.get("plots") and missing and read(folder.metrics).epochs:
        monitor, said = config["trainer"]["monitor"], config["trainer"]["mode"]
        words = (monitor, better_end(monitor, said), title(config["model"]["name"], config["data"]["name"], folder))
        drawn = Drawing(folder.path, *words).end(lambda: False)
        log.info("its pictures were missing: %d of them are drawn", len(drawn))


def title(model: str, data: str, folder: RunFolder) -> str:
    """Of its curves."""
    return f"{model} on {data}, {folder.path.name}"


def forget(plots: Path) -> None:
    """Remove what a test found, which is of a training that goes on now."""
    for name in FOUND:
        for suffix in (".png", ".json"):
            with suppress(OSError):
                (plots / f"{name}{suffix}").unlink(missing_ok=True)
