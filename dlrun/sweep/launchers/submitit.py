"""Jobs by submitit: SLURM's queue, or its stand-in on this machine.

submitit is driven here, not Hydra's plugin for it, whose options these are: that composes a job's config again where
the job runs, from conf/ as it is by then, and stops at the first job that was killed.

- All jobs that the sweep has to give are handed to SLURM at once, as an array, `array_parallelism` at a time: they
  keep their place in the queue, and run on if this process dies. What comes later (a search's next trial, a retry) is
  submitted when fewer than that are left.
- Results are files that submitit leaves, looked for every few seconds; SLURM itself is asked once a minute
  (clusters.py).
- `.submitit/submitted.jsonl` in the sweep's folder says which job of SLURM's is which of the sweep's. When the sweep
  is resumed, a job that SLURM still has isn't started again: it is waited for. Should two meet all the same, one has
  the lock of the run folder and trains; a job that is done by then ends at once.
- Of time limits, preemption and requeues tells submitted.py.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from dlrun.errors import UserError
from dlrun.registry import check_options
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.launchers import Ended
from dlrun.sweep.launchers.clusters import Cluster, Here, Slurm
from dlrun.sweep.launchers.submitit_options import LocalOptions, Options, SlurmOptions
from dlrun.sweep.launchers.submitted import Submitted

log = logging.getLogger("dlrun")
STOPPING = 2.0  # seconds between two questions, once the jobs were told to end
FULL = 60.0  # seconds after which a job that the queue didn't take is offered again


@dataclass
class Place:
    """A job where submitit put it."""

    job: Any  # submitit's
    gone: float | None = None  # since when nobody knows it any more


class Submitit:
    """A launcher: hands jobs to one of submitit's executors, a first lot at once, then as many as make `parallel`."""

    def __init__(self, folder: SweepFolder, cluster: Cluster, parallel: int, options: Options):
        self.folder, self.cluster, self.parallel, self.options = folder, cluster, parallel, options
        self.slots, self.elsewhere = cluster.at_once, cluster.elsewhere
        self.held: deque[int] = deque()  # not handed over yet
        self.withdrawn: list[int] = []
        self.places: dict[int, Place] = {}
        self.record = Record(folder.path / ".submitit" / "submitted.jsonl", cluster)
        self.told = 0  # times that the jobs were asked to end
        self.look = self.question = self.offer = 0.0  # when the next ones are due

    @cached_property
    def executor(self) -> Any:
        """It makes its folder, so not before there is a job."""
        import submitit

        place = self.options.submitit_folder or str(self.folder.path.absolute() / ".submitit" / "%j")
        more = {"slurm_max_num_timeout": self.options.max_num_timeout} if isinstance(self.options, SlurmOptions) else {}
        executor = submitit.AutoExecutor(place, self.cluster.name, **more)
        executor.update_parameters(**_parameters(self.options, self.cluster.name))
        return executor._executor  # which knows what kind its jobs are

    def start(self, job: FrozenJob) -> None:
        self.held.append(job.number)

    def wait(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        if self.held:
            self._adopt()
            self._submit()
        while not (ended := self._ended()) and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, max(0.02, self.look - time.monotonic())))
        return ended

    def withdraw(self) -> None:
        """Take back the jobs that haven't begun."""
        self.withdrawn += self.held
        self.held.clear()
        self.cluster.withdraw(self._ids())
        self.look = self.question = 0.0

    def stop(self) -> None:
        self.told += 1
        self._tell()

    def close(self) -> None:
        """Jobs that are still there go on; a resumed sweep finds them."""

    def _tell(self) -> None:
        self.withdraw()
        tell = self.cluster.ask if self.told == 1 else self.cluster.kill
        tell(self._ids())

    def _ids(self) -> list[str]:
        return [place.job.job_id for place in self.places.values()]

    def _adopt(self) -> None:
        """Wait for those that were submitted when the sweep was last driven, and are still there."""
        for number, name in self.record.alive(self.held).items():
            log.info("job %d is with %s already, as %s", number, self.cluster.name, name)
            self.held.remove(number)
            self.places[number] = Place(self.executor.job_class(folder=self.executor.folder, job_id=name))

    def _submit(self) -> None:
        several = len(self.held) if not self.places else max(0, self.parallel - len(self.places))
        numbers = list(self.held)[:several]
        if not numbers or time.monotonic() < self.offer:
            return
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        work = [Submitted(str(self.folder.path.absolute()), number) for number in numbers]
        try:
            # Variables of a job that we may be in ourselves would count as the new one's; and it prints what it raises.
            with submitit.helpers.clean_env(), redirect_stderr(StringIO()):
                jobs = self.executor.submit_array(work)
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            said = " ".join(str(error).split())
            if not self.places:
                raise UserError(f"hydra/launcher: submitit can't submit a job: {said}") from error
            log.warning("submitit can't submit a job now, and tries again: %s", said)
            self.offer = time.monotonic() + FULL
            return
        for number, job in zip(numbers, jobs, strict=True):
            self.held.popleft()
            self.places[number] = Place(job)
        self.record.add({number: self.places[number].job.job_id for number in numbers})

    def _ended(self) -> list[Ended]:
        ended = [Ended(number, None, "taken back before it began") for number in self.withdrawn]
        self.withdrawn.clear()
        now = time.monotonic()
        if now < self.look:
            return ended
        self.look = now + self.cluster.pause
        if now >= self.question and self.places:
            self._question(now)
        asked = False
        for number, place in list(self.places.items()):
            if place.job.paths.result_pickle.name in _names(place.job.paths.folder):
                ended.append(_result(number, place.job))
            elif place.gone is not None and now - place.gone >= self.cluster.late:
                state = self.cluster.state(place.job, ask=not asked)
                asked = True
                where = f"{self.cluster.name} job {place.job.job_id}"
                ended.append(Ended(number, None, f"{where} left no result ({state}); see {place.job.paths.stderr}"))
            else:
                continue
            del self.places[number]
        return ended

    def _question(self, now: float) -> None:
        """Who is still there? One that was told to end is told again: it may have begun, or been requeued, since."""
        self.question = now + min(self.cluster.patience, STOPPING if self.told else self.cluster.patience)
        alive = self.cluster.alive(self._ids())
        if alive is None:
            return
        for place in self.places.values():
            there = place.job.job_id in alive
            place.gone = None if there else now if place.gone is None else place.gone
        if self.told and alive:
            self.cluster.withdraw(alive)
            (self.cluster.ask if self.told == 1 else self.cluster.kill)(alive)


class Record:
    """Which of submitit's jobs is which of the sweep's, on disk."""

    def __init__(self, path: Path, cluster: Cluster):
        self.path, self.cluster = path, cluster
        self.place = {"cluster": cluster.name, "host": socket.gethostname() if cluster.name == "local" else None}
        self.earlier: dict[int, str] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            with suppress(ValueError):  # a kill may have cut off the last one
                row = json.loads(line)
                if self.place.items() <= row.items():
                    self.earlier[row["job"]] = row["id"]

    def add(self, ids: Mapping[int, str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.writelines(json.dumps({"job": number, "id": name} | self.place) + "\n" for number, name in ids.items())

    def alive(self, numbers: Iterable[int]) -> dict[int, str]:
        """Those of an earlier process that still wait or run; each is asked about once. Raises UserError."""
        known = {number: self.earlier.pop(number) for number in numbers if number in self.earlier}
        alive = self.cluster.alive(list(known.values())) if known else set()
        if alive is None:
            raise UserError("hydra/launcher: SLURM doesn't say which jobs of this sweep it still has; try again later")
        return {number: name for number, name in known.items() if name in alive}


def build(node: Mapping[str, Any], folder: SweepFolder) -> Submitit:
    """The launcher of a node with the options of Hydra's submitit plugin. Raises UserError."""
    slurm = str(node["_target_"]).endswith("SlurmLauncher")
    word = "submitit_slurm" if slurm else "submitit_local"
    given = {str(name): value for name, value in node.items() if name != "_target_"}
    kind: type[Options] = SlurmOptions if slurm else LocalOptions
    check_options(kind, given, "hydra.launcher")
    options = kind(**given)
    if options.nodes * options.tasks_per_node > 1:
        raise UserError(
            f"hydra.launcher.nodes × tasks_per_node: expected 1, got {options.nodes} × {options.tasks_per_node}: "
            "training in several processes isn't supported yet"
        )
    if find_spec("submitit") is None:
        raise UserError(f"hydra/launcher={word} needs submitit: pip install 'dlrun[submitit]'")
    if isinstance(options, SlurmOptions):
        return Submitit(folder, Slurm(), options.array_parallelism, options)
    assert isinstance(options, LocalOptions)
    if options.gpus_per_node and options.jobs > 1:
        raise UserError(
            f"hydra.launcher.jobs: expected 1 with gpus_per_node={options.gpus_per_node}, got {options.jobs}: "
            "all would have the same GPUs; hydra/launcher=local shares them out"
        )
    return Submitit(folder, Here(options.jobs), options.jobs, options)


def _parameters(options: Options, cluster: str) -> dict[str, Any]:
    """As submitit's AutoExecutor takes them: what only one cluster knows bears its name."""
    shared = {name.name for name in fields(Options)}
    ours = {"submitit_folder", "max_num_timeout", "jobs"}
    values = {name.name: getattr(options, name.name) for name in fields(options) if name.name not in ours}
    return {k if k in shared else f"{cluster}_{k}": v for k, v in values.items() if v is not None}


def _names(folder: Path) -> list[str]:
    """A shared folder's entries as they are now; asking for one name may be answered from a cache."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _result(number: int, job: Any) -> Ended:
    from submitit.core.utils import pickle_load

    outcome, value = pickle_load(job.paths.result_pickle)
    if outcome == "success":
        return Ended(number, int(value))
    lines = [line for line in str(value).splitlines() if line.strip()]
    return Ended(number, None, lines[-1].strip() if lines else "submitit's job failed")
