"""The summary of a sweep, as a W&B run beside those of its jobs; and jobs that run at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import wandb
from PIL import Image
from test_wandb_tracker import CONFIG, summary, tracker
from wandb_server import RecordedRun, WandbServer

from dlrun.tracking.wandb import LONGEST_TAG, fitting, session
from dlrun.tracking.wandb.parts import numbers, parts
from dlrun.tracking.wandb.sweeps import summarize_sweep

TABLE = "rank,model,runs,val/acc,best/epoch\n1,cnn,2,0.75,3\n2,mlp,2,0.5,\n"
VALUES = {"best/val/acc": 0.75, "jobs": 4, "failed": 0}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(session, "PATIENCE", 10.0)
    yield
    wandb.teardown()


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The folder of a sweep with results, and one job that W&B isn't told of yet."""
    (tmp_path / "plots").mkdir()
    (tmp_path / "0").mkdir()
    (tmp_path / "results.csv").write_text(TABLE)
    Image.new("RGB", (4, 3)).save(tmp_path / "plots" / "curves.png")
    return tmp_path


def a_job(folder: Path, mode: str) -> None:
    run = tracker(folder / "0", "job", mode=mode, group="09-00-00", job_type="sweep")
    run.finish(summary(0))


def told(folder: Path, **changes: Any) -> None:
    options: dict[str, Any] = {"name": "09-00-00", "config": CONFIG, "swept": ["model", "seed"], "exit_code": 0}
    options |= {"table": folder / "results.csv", "pictures": [folder / "plots" / "curves.png"], "values": VALUES}
    options |= {"project": "dlrun", "entity": None, "mode": "online", "init_timeout": 20.0, "tags": ["a"]}
    summarize_sweep(folder, "whole", [(folder / "0", "job")], **options | changes)
    wandb.teardown()  # all of it is in the file


def table_of(run: RecordedRun) -> dict[str, Any]:
    names = [name for name in run.files if "results" in name and name.endswith(".table.json")]
    return json.loads(run.files[names[-1]])


def test_a_run_of_its_own_in_the_sweeps_group(sweep: Path, server: WandbServer) -> None:
    a_job(sweep, "online")
    told(sweep)
    run = server.runs["whole"]
    assert (run.group, run.job_type, run.name, run.project) == (
        "09-00-00",
        "sweep-summary",
        "09-00-00 summary",
        "dlrun",
    )
    assert (run.tags, run.exit_code, run.complete) == (["a"], 0, True)
    assert {key: run.config[key] for key in CONFIG} == CONFIG
    assert run.config["swept"] == ["model", "seed"]
    assert {name: run.summary[name] for name in VALUES} == VALUES
    table = table_of(run)
    assert table["columns"] == ["rank", "model", "runs", "val/acc", "best/epoch"]
    assert table["data"] == [[1, "cnn", 2, 0.75, 3], [2, "mlp", 2, 0.5, None]]
    assert run.history[-1]["plots/curves"]["_type"] == "image-file"
    assert any(name.startswith("media/images/plots/curves") for name in run.files)


def test_told_again_it_is_the_same_run(sweep: Path, server: WandbServer) -> None:
    a_job(sweep, "online")
    told(sweep, exit_code=1)
    assert server.runs["whole"].exit_code == 1
    (sweep / "results.csv").write_text(TABLE + "3,lstm,2,0.25,1\n")
    told(sweep, values={**VALUES, "best/val/acc": 0.8})
    assert set(server.runs) == {"job", "whole"}
    run = server.runs["whole"]
    assert [row["best/val/acc"] for row in run.history] == [0.75, 0.8]
    assert (run.summary["best/val/acc"], run.exit_code) == (0.8, 0)
    assert len(parts(sweep, "whole")) == 2


def test_it_is_offline_where_the_jobs_were(sweep: Path, server: WandbServer) -> None:
    a_job(sweep, "offline")
    told(sweep)
    assert server.runs == {}
    (part,) = parts(sweep, "whole")
    (row,) = part.rows().values()
    assert part.offline
    assert VALUES.items() <= numbers(row).items()


def test_of_a_sweep_that_wandb_does_not_know_it_is_not_told(sweep: Path, server: WandbServer) -> None:
    told(sweep)
    assert server.runs == {}
    assert not (sweep / "wandb").exists()


def test_nothing_is_raised_and_nobody_waits(
    sweep: Path,
    server: WandbServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(session, "PATIENCE", 1.0)
    a_job(sweep, "online")
    server.turn("hangs")
    told(sweep, table=sweep / "nothing.csv", init_timeout=1.0)
    assert "can't be reached" in caplog.text
    (part,) = [part for part in parts(sweep, "whole") if part.ended]
    assert part.offline


def test_a_tag_that_wandb_refuses_is_made_to_fit(tmp_path: Path, server: WandbServer) -> None:
    tags = ["a", "", "a", "x" * LONGEST_TAG, "model.hidden_sizes=" + "[" + "1024," * 20 + "10]"]
    run = tracker(tmp_path, "tagged", tags=tags)
    run.finish(summary(0))
    assert server.runs["tagged"].tags == fitting(tags)
    kept = fitting(tags)
    assert kept[:2] == ["a", "x" * LONGEST_TAG]
    assert len(kept) == 3
    assert len(kept[2]) == LONGEST_TAG
    assert kept[2].startswith("model.hidden_sizes=[1024,")
    assert kept[2].endswith(",10]")


ONE_JOB = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from test_wandb_tracker import summary, tracker
from dlrun.tracking.wandb import session
session.PATIENCE = 10.0
name, mode, start = sys.argv[1], sys.argv[2], float(sys.argv[3])
folder = Path(name)
folder.mkdir()
time.sleep(max(0, start - time.time()))
run = tracker(folder, name, mode=mode, tags=[name], group="g")
for step in range(1, 41):
    run.step({{"train/loss": int(name[-1]) + step / 100}}, step)
    time.sleep(0.01)
run.finish(summary(0))
import wandb
wandb.teardown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_jobs_at_the_same_time_keep_apart(mode: str, tmp_path: Path, server: WandbServer) -> None:
    """Four processes that begin in the same instant: every row of each is in its own run, and in its own folder."""
    code = ONE_JOB.format(path=sys.path)
    names, start = [f"job{number}" for number in range(4)], time.time() + 8
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(
                lambda name: subprocess.run(
                    [sys.executable, "-c", code, name, mode, str(start)], cwd=tmp_path, capture_output=True, text=True
                ),
                names,
            )
        )
    assert [process.returncode for process in done] == [0] * 4, done
    for number, name in enumerate(names):
        wanted = [number + step / 100 for step in range(1, 41)]
        (part,) = parts(tmp_path / name, name)
        assert [numbers(row)["step/train/loss"] for _, row in sorted(part.rows().items())] == wanted
        assert part.ended
        if mode == "online":
            run = server.runs[name]
            assert [row["step/train/loss"] for row in run.history] == wanted
            assert (run.tags, run.exit_code, run.complete) == ([name], 0, True)
    begun = {part.begun for name in names for part in parts(tmp_path / name, name)}
    assert len(begun) <= 2, "they did begin together"
    assert set(server.runs) == (set(names) if mode == "online" else set())
