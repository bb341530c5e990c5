"""How far a sweep has come: while a process has it, after that was killed, and at its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from made_sweeps import grid, make, scored

from dlrun.sweep.answers.status import look, status, text
from dlrun.sweep.verbs import run as sweep_command

HOLDER = """if True:
    import sys
    from pathlib import Path
    from dlrun.locks import hold
    for name in sys.argv[1:]:
        hold(Path(name))
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(*locks: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process has the locks, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, locks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def came_to(values, number):
    if number == 2:
        return scored(None, status="failed", error="RuntimeError: ünlucky")
    if number in (3, 4):
        return {"status": "running", "curve": [0.1, 0.2][: number - 2]}
    return scored(0.5, status="pruned" if number == 1 else "finished") if number < 3 else None


def test_while_it_runs_and_after_a_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = grid(model=["a", "b"], seed=range(5))
    folder = make(tmp_path / "s", jobs, came_to, status="running", seconds=None)
    for job, seconds in ((0, 10.0), (1, 20.0)):
        folder.note(job, "ended", state="pruned" if job else "done", code=0, seconds=seconds)
    folder.note(3, "started", attempt=1, device="cuda:1")
    folder.note(4, "started", attempt=1)
    with held(folder.lock, *(folder.run(job).lock for job in folder.read_jobs()[3:5])) as process:
        found = look(folder.path)
        said = status(folder.path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert found["counts"] == {"done": 1, "running": 2, "failed": 1, "pruned": 1, "interrupted": 0, "pending": 5}
    first, second = found["running"]
    assert (first["job"], first["epoch"], first["epochs"], first["device"]) == (3, 1, 3, "cuda:1")
    assert (second["job"], second["epoch"], second["device"]) == (4, 2, None)
    assert found["failed"][0]["error"] == "RuntimeError: ünlucky"
    # five jobs of 15 s wait, two have just begun, and two run at a time
    under_way = sum(15 - job["seconds"] for job in found["running"])
    assert found["seconds_left"] == pytest.approx((5 * 15 + under_way) / 2, abs=0.1)
    assert found["seconds_per_job"] == 15
    assert "10 jobs: 1 done  2 running  1 failed  1 pruned  5 pending" in said
    assert "running 3  model=a seed=3  epoch 1/3" in said
    assert "15 s a job, 2 at a time" in said

    assert sweep_command(["status", f"run={folder.path}", "format=json"]) == 0
    after = json.loads(capsys.readouterr().out)
    assert after["status"] == "interrupted"
    assert after["counts"] == found["counts"] | {"running": 0, "interrupted": 2}
    assert after["seconds_left"] is None
    assert f"to go on: dlrun sweep resume run={folder.path}" in text(after, 300)


def test_before_the_first_job_has_ended_epochs_tell_the_pace(tmp_path: Path) -> None:
    running = {"status": "running", "curve": [0.1, 0.2]}
    folder = make(tmp_path / "s", grid(seed=range(3)), lambda v, i: None if i else running, status="running")
    began = datetime.now().astimezone() - timedelta(minutes=1)
    folder.note(0, "started", attempt=1, time=began.isoformat())
    with held(folder.lock, folder.run(folder.read_job(0)).lock):
        found = look(folder.path)
    seconds = found["running"][0]["seconds"]
    assert seconds >= 60
    assert found["seconds_per_job"] == pytest.approx(seconds / 2 * 3, abs=0.01)
    assert found["seconds_left"] == pytest.approx(2 * seconds / 2 * 3 + seconds / 2, abs=0.2)


def test_a_search_knows_how_many_trials_will_come(tmp_path: Path) -> None:
    study = {"objectives": ["val/acc"], "directions": ["maximize"], "n_trials": 20}
    jobs = [{"optimizer.lr": 0.1 * i} for i in range(1, 4)]
    folder = make(tmp_path / "s", jobs, lambda v, i: scored(0.5), kind="search", study=study, status="interrupted")
    found = look(folder.path)
    assert (found["total"], found["counts"]["pending"], found["status"]) == (20, 17, "interrupted")


def test_at_its_end(tmp_path: Path) -> None:
    folder = make(tmp_path / "s", grid(seed=[0, 1]), lambda v, i: scored(0.5))
    assert status(folder.path).splitlines() == [f"sweep {folder.path}: finished", "2 jobs: 2 done"]


def test_no_line_is_wider_than_the_terminal(tmp_path: Path) -> None:
    jobs = grid(data__root=["/very/long" * 20, "名前" * 60])
    failed = scored(None, status="failed", error="x" * 500)
    folder = make(tmp_path / "s", jobs, lambda v, i: failed)
    assert all(len(line) <= 60 for line in text(look(folder.path), 60).splitlines())


def test_needs_no_torch(tmp_path: Path) -> None:
    folder = make(tmp_path / "s", grid(model=["a", "b"], seed=[0, 1]), lambda v, i: scored(0.5 + i / 10))
    script = f"""if True:
        import sys
        from dlrun.sweep.verbs import run
        for verb in ("status", "report", "best"):
            run([verb, "run={folder.path}"])
        assert not {{"torch", "albumentations", "wandb"}} & set(sys.modules), sys.modules.keys()
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ.copy())
    assert done.returncode == 0, done.stderr
