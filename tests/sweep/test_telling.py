"""What W&B hears of a sweep: a run per job, in one group, and one of the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import wandb
from command_line import CommandLine

from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.telling import tell
from dlrun.tracking.wandb.parts import numbers, parts, records

TINY = ["data=fake", "model=perceptron", "data.limit=40", "data.num_workers=0", "trainer.max_epochs=1"]


def as_told(folder: Path, run_id: str) -> Any:
    """What W&B has on disk of a run: its name, group, tags and config."""
    (part, *_) = parts(folder, run_id)
    return next(record.run for record, _ in records(part.file) if record.HasField("run"))


def test_a_run_per_job_and_one_of_the_whole(dlrun: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(dlrun.folder))
    words = [*TINY, "optimizer.lr=0.1,0.2", "seed=1", "tags=[mine]", "tracking.wandb.mode=offline"]
    assert dlrun("-m", "hydra.sweep.dir=s", *words).code == 0
    wandb.teardown()  # all is in the files
    folder = SweepFolder(dlrun.folder / "s")
    for job, value in zip(folder.read_jobs(), ("0.1", "0.2"), strict=True):
        run = as_told(folder.run(job).path, job.run_id)
        assert (run.run_group, run.job_type, run.display_name) == ("s", "sweep", f"{job.number} lr={value}")
        assert list(run.tags) == ["mine", f"optimizer.lr={value}"]

    folder.results_csv.write_text("job,val/acc\n0,0.5\n1,0.25\n")
    tell(folder, {"best/val/acc": 0.5, "best/val/acc/sd": None})
    told = folder.read()["wandb_run"]
    tell(folder, {"best/val/acc": 0.75})
    wandb.teardown()
    run = as_told(folder.path, told)
    assert (run.run_group, run.job_type, run.project) == ("s", "sweep-summary", "dlrun")
    assert list(run.tags) == ["mine"], "what all jobs are tagged with"
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["swept"] == ["optimizer.lr"]
    assert "lr" not in config["optimizer"]
    assert config["optimizer"]["name"] == "adamw"
    at_its_end, first, second = parts(folder.path, told)
    (row,) = at_its_end.rows().values()
    best = max(folder.run(job).read_summary()["best"]["val/acc"] for job in folder.read_jobs())
    assert numbers(row).items() >= {"best/val/acc": best, "jobs": 2, "done": 2}.items()
    (row,) = first.rows().values()
    assert numbers(row).items() >= {"best/val/acc": 0.5, "jobs": 2, "done": 2}.items()
    assert folder.read()["wandb_run"] == told, "told again it is the same run"
    assert min(second.rows()) > max(first.rows())

    jobs = [dict(job, config={**job["config"], "tracking": {}}) for job in map(json.loads, folder.jobs.open())]
    folder.jobs.write_text("".join(json.dumps(job) + "\n" for job in jobs))
    tell(folder, {})
    assert len(parts(folder.path, told)) == 3, "a sweep without W&B isn't told"
