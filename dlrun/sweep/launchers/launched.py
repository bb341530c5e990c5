"""What a launcher plugin of Hydra's runs for a job, wherever that is, and the notes by which we hear of it.

All of it goes by files in `.launched/` of the sweep's folder, which every machine sees: a plugin may have no other
way to tell of one job before all have ended, and none at all to ask a job to stop.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dlrun.atomic import atomic_write
from dlrun.sweep.launchers.remote import start

HOME = ".launched"  # in the sweep's folder
LISTEN = 0.5  # seconds between two looks at what the driver says


class Notes:
    """Of one batch of jobs: what became of each, and what they are told."""

    def __init__(self, sweep: Path, batch: str = ""):
        self.top, self.batch = sweep / HOME, batch

    def begin(self, batch: str) -> None:
        self.batch = batch
        self.folder.mkdir(parents=True)

    @property
    def folder(self) -> Path:
        return self.top / self.batch

    def remove(self) -> None:
        shutil.rmtree(self.top, ignore_errors=True)

    def say(self, word: str) -> None:
        """To all jobs: `begin no more`, `stop` or `kill`."""
        if self.batch:
            self._write("said", {"word": word})

    def heard(self) -> str | None:
        try:
            return str(json.loads((self.folder / "said").read_text())["word"])
        except FileNotFoundError:
            return None

    def note_begin(self, number: int) -> None:
        (self.folder / f"{number}.begun").touch()

    def note_end(self, number: int, code: int | None, message: str = "") -> None:
        self._write(f"{number}.ended", {"code": code, "message": message})

    def begun(self) -> bool:
        """Whether any job has."""
        return any(self.folder.glob("*.begun"))

    def read(self) -> dict[int, tuple[int | None, str]]:
        """Number → exit code and message of those that have ended."""
        found = {}
        for path in self.folder.glob("*.ended") if self.batch else ():
            note = json.loads(path.read_text())
            found[int(path.stem)] = (note["code"], note["message"])
        return found

    def _write(self, name: str, content: dict[str, Any]) -> None:
        with atomic_write(self.folder / name) as file:
            file.write(json.dumps(content).encode())


@dataclass(frozen=True)
class Launched:
    """The task function of a batch: pickled here, called there with a job's config. Returns its exit code.

    It raises nothing: some plugins lose the other jobs over it.
    """

    path: str  # of the sweep
    batch: str
    place: str  # the working directory, for relative paths in the config

    def __call__(self, config: DictConfig) -> int | None:
        notes = Notes(Path(self.path), self.batch)
        number, code, message = -1, None, ""
        try:
            number = int(HydraConfig.get().overrides.hydra[-1].partition("=")[2])
            if notes.heard() is None:
                notes.note_begin(number)
                code = self._run(number, notes)
            else:
                message = "taken back before it began"
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        with suppress(OSError):  # the driver hears the rest from the plugin
            notes.note_end(number, code, message)
        return code

    def _run(self, number: int, notes: Notes) -> int:
        process = start(Path(self.path), number, place=Path(self.place))
        told = None
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(LISTEN)
            word = notes.heard()
            if word != told and word in ("stop", "kill"):
                process.kill() if word == "kill" else process.terminate()
                told = word
