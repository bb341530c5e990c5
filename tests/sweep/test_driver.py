"""What the driver does about jobs that fail, held against what they left in their folders."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from dlrun.errors import RunFailed, UserError
from dlrun.sweep.driver import Driver, _result
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.grid import Grid
from dlrun.sweep.job import _note as note
from dlrun.sweep.launchers import Ended
from dlrun.sweep.policy import Policy
from dlrun.sweep.running import run
from dlrun.sweep.state import state_of


class Scripted:
    """A launcher whose jobs end as they are told to: a status for each try, or the signal that kills the job."""

    elsewhere = False

    def __init__(self, folder: SweepFolder, slots: int, ends: dict[int, Sequence[str | int]]):
        self.folder, self.slots, self.ends = folder, slots, ends
        self.running: list[FrozenJob] = []
        self.started: list[int] = []
        self.most = 0

    def start(self, job: FrozenJob) -> None:
        self.started.append(job.number)
        self.running.append(job)
        self.most = max(self.most, len(self.running))

    def wait(self, seconds: float) -> list[Ended]:
        job = self.running.pop(0)
        ends = self.ends.get(job.number, ["finished"])
        end = ends[min(self.started.count(job.number), len(ends)) - 1]
        run = self.folder.run(job)
        run.path.mkdir(exist_ok=True)
        summary: dict[str, Any] = {"run_id": job.run_id, "status": "running", "error": None, "best": {"val/acc": 0.5}}
        if isinstance(end, str):
            summary |= {"status": end, "error": "as\n told" if end in ("failed", "preempted") else None}
        if end != -15:  # it died before it had a summary
            run.summary.write_text(json.dumps(summary))
        return [Ended(job.number, end if isinstance(end, int) else 0)]

    def withdraw(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    sweep = SweepFolder(tmp_path)
    sweep.begin({"kind": "grid"})
    sweep.append(
        FrozenJob(
            number=n,
            key=str(n),
            run_id=f"run{n}",
            folder=str(n),
            overrides=[f"seed={n}"],
            choices={},
            config={},
            label=f"seed={n}",
        )
        for n in range(6)
    )
    return sweep


def drive(folder: SweepFolder, policy: Policy, slots: int, **ends: Sequence[str | int]) -> tuple[int, Scripted]:
    launcher = Scripted(folder, slots, {int(name[1:]): told for name, told in ends.items()})
    return Driver(folder, Grid(folder), launcher, policy).run(), launcher


def states(folder: SweepFolder) -> list[str]:
    return [state_of(folder.run(job)) for job in folder.read_jobs()]


def test_the_rest_goes_on(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    code, launcher = drive(folder, Policy(), 3, j1=["failed"], j2=[-9], j4=["stopped_early"], j5=[-15])
    assert (code, launcher.most) == (1, 3)
    assert states(folder) == ["done", "failed", "failed", "done", "done", "pending"]
    out = capsys.readouterr().out
    assert "[2/6] seed=1  failed: as told" in out
    assert "seed=2  failed: killed by SIGKILL (out of memory, if nobody else did it)" in out
    assert "seed=5  failed: killed by SIGTERM" in out
    assert json.loads(folder.run(folder.read_job(2)).summary.read_text())["exit_code"] == 137
    code, launcher = drive(folder, Policy(), 1)
    assert (code, launcher.started, states(folder)) == (0, [1, 2, 5], ["done"] * 6)


def test_stop_starts_no_further_job(folder: SweepFolder) -> None:
    code, launcher = drive(folder, Policy(on_error="stop"), 2, j1=["failed"])
    assert (code, launcher.started) == (1, [0, 1, 2])
    assert states(folder) == ["done", "failed", "done", "pending", "pending", "pending"]


def test_retry_tries_again_as_often_as_it_says(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    policy = Policy(on_error="retry", max_retries=2)
    code, launcher = drive(folder, policy, 1, j0=["failed", "finished"], j3=["failed"], j4=[-9, "preempted", "pruned"])
    assert (code, launcher.started) == (1, [0, 0, 1, 2, 3, 3, 3, 4, 4, 4, 5])
    assert states(folder) == ["done", "done", "done", "failed", "pruned", "done"]
    assert "seed=3: as told; again (2 of 2)" in capsys.readouterr().out
    ended = [event for event in folder.read_events() if event["event"] == "ended" and event["job"] == 4]
    assert [event["state"] for event in ended] == ["failed", "interrupted", "pruned"]


def test_a_run_that_another_process_has_isnt_said_to_have_failed(folder: SweepFolder) -> None:
    """SLURM may have a job of an earlier driver's still, or the launcher lose sight of one."""
    run = folder.run(folder.read_job(1))
    run.path.mkdir()
    code = f"import sys; from pathlib import Path; from dlrun.locks import hold; hold(Path({str(run.lock)!r}))"
    with Popen([sys.executable, "-c", f"{code}; print(flush=True); input()"], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        failed, _ = drive(folder, Policy(), 1, j1=[1])
        assert (failed, states(folder)[1], run.read_summary()["status"]) == (1, "running", "running")
        note(run, "hydra.run.dir: it holds a run already", 2)
        assert run.read_summary()["status"] == "running"
        process.kill()


def test_a_folder_that_goes_away_is_told_in_a_line(folder: SweepFolder, caplog: pytest.LogCaptureFixture) -> None:
    class Taken(Scripted):
        def wait(self, seconds: float) -> list[Ended]:
            ended = super().wait(seconds)
            shutil.rmtree(folder.path)
            return ended

    folder.update(policy={})
    with pytest.raises(RunFailed) as failed:
        run(folder, Taken(folder, 1, {}))
    assert failed.value.exit_code == 1
    assert "the sweep broke off: [Errno 2] No such file or directory" in caplog.text


def test_jobs_that_are_missing_are_missed(folder: SweepFolder) -> None:
    folder.update(jobs=6)
    assert len(folder.read_jobs()) == 6
    lines = folder.jobs.read_text().splitlines(keepends=True)
    folder.jobs.write_text("".join(lines[:4]))
    with pytest.raises(UserError, match=r"jobs\.jsonl has 4 of 6 jobs: it was cut off"):
        folder.read_jobs()


def test_a_line_that_a_kill_cut_off_is_none(folder: SweepFolder) -> None:
    with folder.jobs.open("a") as file:
        file.write('{"number": 6, "key"')
    assert len(folder.read_jobs()) == 6
    folder.append([FrozenJob(number=6, key="6", run_id="x", folder="6", overrides=[], choices={}, config={})])
    assert [job.number for job in folder.read_jobs()] == list(range(7))


def test_an_error_of_several_lines_is_one_in_the_terminal() -> None:
    assert _result("failed", {"error": "ValueError: one,\n  two"}) == "failed: ValueError: one, two"
