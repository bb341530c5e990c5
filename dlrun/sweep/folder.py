"""Every path inside one sweep, its manifest, and what happened to its jobs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from dlrun.atomic import atomic_write, flush_folder
from dlrun.errors import UserError
from dlrun.locks import hold, release
from dlrun.runfolder import RunFolder, finite

FORMAT = 1  # of sweep.json and jobs.jsonl


@dataclass(frozen=True, kw_only=True)
class FrozenJob:
    """One job: a run that is wholly described before it begins."""

    number: int
    key: str  # what it is, as `identity.key` has it: two jobs with one key would be the same run
    run_id: str
    folder: str  # inside the sweep's
    overrides: list[str]  # of the command that makes this job alone
    choices: dict[str, Any]  # config group → the name that was chosen
    changed: dict[str, Any] | None = None  # what differs from the defaults → what it would be
    config: dict[str, Any]  # resolved
    label: str = ""  # its words that are swept over: what tells it from the others
    trial: int | None = None  # its number in the search's study
    command: list[str] = field(default_factory=list)


class SweepFolder:
    """The folder of one sweep; `SweepFolder(path)` only names the paths."""

    def __init__(self, path: Path):
        self.path = path
        self.sweep = path / "sweep.json"
        self.bases = path / "bases.json"
        self.jobs = path / "jobs.jsonl"
        self.events = path / "events.jsonl"
        self.lock = path / ".lock"
        self.results_csv = path / "results.csv"
        self.results_md = path / "results.md"
        self.plots = path / "plots"
        self.journal = path / "study.journal"

    @property
    def name(self) -> str:
        return self.path.absolute().name

    def run(self, job: FrozenJob) -> RunFolder:
        return RunFolder(self.path / job.folder)

    def hold(self) -> None:
        """It is this process's from here on. Raises UserError if another one runs it."""
        try:
            hold(self.lock)
        except UserError:
            owner = self.lock.read_text(errors="replace").strip()
            raise UserError(f"run: {self.path} is being run by {owner or 'another process'}") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """`hold` for the block."""
        self.hold()
        try:
            yield
        finally:
            release(self.lock)

    def begin(self, facts: Mapping[str, Any]) -> None:
        """It is a sweep from here on, so all else that makes it one is there before."""
        begun = {"format": FORMAT, "name": self.name, "status": "running", "created": _now()}
        _write_json(self.sweep, begun | dict(facts))

    def read(self) -> dict[str, Any]:
        """sweep.json. Raises UserError if the folder isn't a sweep's."""
        try:
            facts = json.loads(self.sweep.read_text(encoding="utf-8"))
        except FileNotFoundError:
            kind = "a run" if RunFolder(self.path).summary.exists() else "a folder without sweep.json"
            raise UserError(f"run: {self.path} isn't a sweep, but {kind}") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.sweep} can't be read: {error}") from None
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise UserError(f"{self.sweep} isn't what this version of dlrun writes (format {FORMAT})")
        return facts

    def update(self, **changes: Any) -> dict[str, Any]:
        """Replace `changes` in sweep.json, atomically; returns the whole of it."""
        facts = self.read() | changes
        _write_json(self.sweep, facts)
        return facts

    def write_bases(self, bases: Sequence[Mapping[str, Any]]) -> None:
        _write_json(self.bases, list(bases), indent=None)

    def read_bases(self) -> list[dict[str, Any]]:
        try:
            bases = json.loads(self.bases.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.bases} can't be read: {error}") from None
        return list(bases)

    def append(self, jobs: Iterable[FrozenJob]) -> None:
        """Add jobs to the manifest; they are on disk when this returns."""
        _append(self.jobs, [asdict(job) for job in jobs], sync=True)

    def read_jobs(self) -> list[FrozenJob]:
        """The manifest, in the order of the jobs' numbers. Raises UserError if it can't be read."""
        # There is none of a search whose trials all went to others.
        jobs = [_job(row, self.jobs) for row in _rows(self.jobs)] if self.jobs.exists() else []
        if self.sweep.exists() and len(jobs) < (known := self.read().get("jobs", 0)):
            raise UserError(f"{self.jobs} has {len(jobs)} of {known} jobs: it was cut off")
        return jobs

    def read_job(self, number: int) -> FrozenJob:
        for job in self.read_jobs():
            if job.number == number:
                return job
        raise UserError(f"{self.jobs} has no job {number}")

    def note(self, job: int, event: str, **facts: Any) -> None:
        """Write down what happened to a job."""
        _append(self.events, [{"time": _now(), "job": job, "event": event, **facts}])

    def read_events(self) -> list[dict[str, Any]]:
        return _rows(self.events) if self.events.exists() else []


def _job(row: Mapping[str, Any], path: Path) -> FrozenJob:
    try:
        return FrozenJob(**{name.name: row[name.name] for name in fields(FrozenJob) if name.name in row})
    except TypeError as error:
        raise UserError(f"{path} isn't the manifest of a sweep: {error}") from None


def _rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON Lines file; one that a kill cut off in its middle is as if it hadn't been begun."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):  # a whole line, with its end
                raise UserError(f"{path} is damaged in line {number}") from None
    return rows


def _append(path: Path, rows: Sequence[Mapping[str, Any]], sync: bool = False) -> None:
    """Whole lines at the end of the file; half a line that a kill left there is cut off first."""
    text = "".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows).encode()
    new = not path.exists()
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            whole = path.read_bytes()
            os.ftruncate(file, whole.rfind(b"\n") + 1)
        view = memoryview(text)
        while view:
            view = view[os.write(file, view) :]
        if sync:
            os.fsync(file)
    finally:
        os.close(file)
    if new and sync:
        flush_folder(path.parent)


def _write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(finite(content), indent=indent, ensure_ascii=False).encode() + b"\n")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
