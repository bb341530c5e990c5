"""submitit's local executor for real, and SLURM as far as its commands go: the jobs are real processes either way."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import CommandLine
from failing_jobs import FRAGILE, TINY, events, summaries
from processes import Process
from slurm_commands import Slurm, install

from dlrun.cli import main
from dlrun.errors import UserError
from dlrun.slurm import requeue
from dlrun.sweep import launchers
from dlrun.sweep.folder import FrozenJob, SweepFolder
from dlrun.sweep.launchers import clusters

CONF = Path(__file__).resolve().parents[3] / "conf/hydra/launcher"
LONG = ["-m", *TINY, "model=mlp", "model.hidden_sizes=[16]", "trainer.max_epochs=100000", "hydra.sweep.dir=sweep"]
ON_SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.array_parallelism=1"]


def node(name: str, /, **changes: Any) -> dict[str, Any]:
    """What Hydra makes of our launcher's file."""
    return dict(yaml.safe_load((CONF / f"{name}.yaml").read_text())) | {"name": "dlrun"} | changes


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Look at files and ask SLURM as often as a test can afford."""
    for name, seconds in [("pause", 0.05), ("patience", 0.2), ("late", 0.2)]:
        patch.setattr(clusters.Slurm, name, seconds)


def on_slurm(folder: Path, words: list[str]) -> None:
    os.chdir(folder)
    os.environ["PATH"] = f"{folder / 'slurm/bin'}:{os.environ['PATH']}"
    sys.argv = ["dlrun", *words]
    with pytest.MonkeyPatch.context() as patch:
        impatient(patch)
        main()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    (tmp_path / "slurm").mkdir()
    monkeypatch.setenv("PATH", str(install(tmp_path / "slurm")), prepend=":")
    impatient(monkeypatch)
    there = Slurm(tmp_path / "slurm")
    yield there
    there.end()


def test_the_local_executor_runs_on_past_a_job_that_raises_and_one_that_is_killed(dlrun: CommandLine) -> None:
    (dlrun.folder / "my_models.py").write_text(FRAGILE)
    config = dlrun.folder / "mine/model/fragile.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("name: fragile\nwidth: 8\nfate: none\n")
    (dlrun.folder / "armed").touch()
    result = dlrun(
        *("-m", "--config-dir", "mine", "plugins=[my_models]", *TINY, "hydra.sweep.dir=sweep", "model=fragile"),
        *("hydra/launcher=submitit_local", "hydra.launcher.jobs=2", "model.fate=raise,kill,none"),
    )
    assert result.code == 1, result.out + result.err
    folder = SweepFolder(dlrun.folder / "sweep")
    ended = summaries(folder)
    assert [ended[name]["status"] for name in "012"] == ["failed", "failed", "finished"], result.out
    assert ended["0"]["error"] == "ValueError: as fated"
    assert ended["1"]["error"].startswith("killed by SIGKILL")
    (dlrun.folder / "armed").unlink()
    result = dlrun("sweep", "resume", "run=sweep", "plugins=[my_models]")
    assert result.code == 0, result.out + result.err
    assert events(folder, "started") == {0: 2, 1: 2, 2: 1}
    assert {summary["status"] for summary in summaries(folder).values()} == {"finished"}
    configs = [yaml.safe_load((dlrun.folder / f"sweep/{name}/config.yaml").read_text()) for name in "012"]
    assert {config["model"]["width"] for config in configs} == {8}, "the YAML was edited in the middle"


def test_a_sweep_on_slurm_whose_driver_is_killed_whose_time_is_up_twice_and_that_loses_a_node(
    dlrun: CommandLine, slurm: Slurm
) -> None:
    options = ["hydra.launcher.timeout_min=1", "hydra.launcher.max_num_timeout=1"]  # of one minute all may be used up
    (slurm.folder / "full").touch()
    process = Process(on_slurm, dlrun.folder, [*LONG, *ON_SLURM, *options, "seed=0,1"])
    process.until(lambda: slurm.calls("squeue"))  # which is asked after the submission
    process.kill()
    process = Process(on_slurm, dlrun.folder, ["sweep", "resume", "run=sweep"])
    process.until(lambda: len(slurm.calls("squeue")) > 2)
    (slurm.folder / "full").unlink()
    folder = SweepFolder(dlrun.folder / "sweep")

    def rows(job: int) -> list[int]:
        path = folder.path / str(job) / "metrics.csv"
        return [int(row["epoch"]) for row in csv.DictReader(path.open())] if path.exists() else []

    process.until(lambda: len(rows(0)) > 3)
    assert (slurm.state("100_0")["state"], slurm.state("100_1")["state"]) == ("RUNNING", "PENDING")
    slurm.scancel(["--signal=USR2", "100_0"])
    process.until(lambda: slurm.state("100_0")["restarts"] == 1)
    far = len(rows(0))
    process.until(lambda: len(rows(0)) > far + 3)
    slurm.scancel(["--signal=USR2", "100_0"])
    process.until(lambda: len(rows(1)) > 3)
    slurm.lose("100_1")
    assert process.wait() == 1, process.output
    assert len(slurm.calls("sbatch")) == 1, "what SLURM still had wasn't submitted again"
    assert slurm.calls("scontrol") == [["requeue", "100_0"]], "one requeue, and one asks for it"
    assert rows(0) == list(range(1, len(rows(0)) + 1)), "each epoch once"
    assert "Job not requeued because: timed-out too many times." in process.output
    assert json.loads((folder.path / "0/summary.json").read_text())["status"] == "preempted"
    assert "slurm job 100_1 left no result (NODE_FAIL); see " in summaries(folder)["1"]["error"]
    script = (folder.path / ".submitit/100/100_submission.sh").read_text()
    assert "#SBATCH --array=0-1%1" in script
    assert "#SBATCH --signal=USR2@120" in script


@pytest.mark.slow
def test_ctrl_c_takes_back_what_waits_and_lets_the_others_save(dlrun: CommandLine, slurm: Slurm) -> None:
    process = Process(on_slurm, dlrun.folder, [*LONG, *ON_SLURM, "seed=0,1"])
    metrics = dlrun.folder / "sweep/0/metrics.csv"
    process.until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 3)
    process.send(signal.SIGINT)
    assert process.wait() == 130, process.output
    assert json.loads((dlrun.folder / "sweep/0/summary.json").read_text())["status"] == "preempted"
    assert slurm.state("100_1")["state"].startswith("CANCELLED")
    assert not (dlrun.folder / "sweep/1").exists()
    assert slurm.calls("scontrol") == []


def test_every_option_reaches_sbatch(tmp_path: Path, slurm: Slurm) -> None:
    (slurm.folder / "full").touch()
    texts = {name: f"a-{name}" for name in ["partition", "qos", "comment", "constraint", "exclude", "gres", "account"]}
    texts |= {"mem_per_gpu": "4G", "mem_per_cpu": "2G"}
    numbers = {"cpus_per_task": 3, "gpus_per_node": 2, "cpus_per_gpu": 5, "gpus_per_task": 1, "nodes": 1}
    others: dict[str, Any] = {"timeout_min": 90, "mem_gb": 8, "name": "mine", "signal_delay_s": 30}
    more = {"additional_parameters": {"mail-type": "END"}, "setup": ["module load x"], "srun_args": ["--exclusive"]}
    launcher = launchers.build(
        node("submitit_slurm", **texts, **numbers, **others, **more, array_parallelism=7, stderr_to_stdout=True),
        SweepFolder(tmp_path),
    )
    assert not (tmp_path / ".submitit").exists(), "made only when there is a job"
    for number in range(9):
        launcher.start(job(number))
    assert launcher.wait(0) == []
    written = (tmp_path / ".submitit/100/100_submission.sh").read_text()
    for name, value in (texts | numbers).items():
        assert f"#SBATCH --{name.replace('_', '-')}={value}\n" in written
    for line in ["--time=90", "--mem=8GB", "--job-name=mine", "--signal=USR2@30", "--array=0-8%7", "--mail-type=END"]:
        assert f"#SBATCH {line}\n" in written
    assert "\nmodule load x\n" in written
    assert " --exclusive " in written
    assert "--error" not in written, "stderr_to_stdout"
    assert set(node("submitit_slurm")) - {"_target_", "submitit_folder", "max_num_timeout", "tasks_per_node"} == (
        {*texts, *numbers, *others, *more, "array_parallelism", "stderr_to_stdout"}
    )
    launcher.stop()
    assert sorted(ended.number for ended in launcher.wait(20)) == list(range(9))
    launcher.start(job(9))  # by itself, as a search would
    launcher.wait(0)
    assert "--array" not in (tmp_path / ".submitit/101/101_submission.sh").read_text()
    launcher.stop()


def test_what_a_cluster_cannot_do_is_refused(tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SweepFolder(tmp_path)
    for name, change, message in [
        ("submitit_slurm", {"timout_min": 5}, "hydra.launcher.timout_min: unknown option; did you mean 'timeout_min'?"),
        ("submitit_slurm", {"timeout_min": 0}, "hydra.launcher.timeout_min: expected a whole number >= 1, got 0"),
        ("submitit_local", {"partition": "gpu"}, "hydra.launcher.partition: unknown option"),
        ("submitit_slurm", {"nodes": 2}, "expected 1, got 2 × 1"),
        ("submitit_local", {"gpus_per_node": 1, "jobs": 2}, "hydra.launcher.jobs: expected 1 with gpus_per_node=1"),
    ]:
        with pytest.raises(UserError) as refused:
            launchers.build(node(name, **change), folder)
        assert message in str(refused.value)
    launcher = launchers.build(node("submitit_slurm", partition="nowhere"), folder)
    launcher.start(job(0))
    with pytest.raises(UserError, match="can't submit a job: sbatch: error: invalid partition specified: nowhere"):
        launcher.wait(0)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(UserError, match="there is no sbatch here"):
        launchers.build(node("submitit_slurm"), folder)
    monkeypatch.setattr("dlrun.sweep.launchers.submitit.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs submitit: pip install 'dlrun\[submitit\]'"):
        launchers.build(node("submitit_local"), folder)


def test_under_submitit_a_run_leaves_the_requeue_to_it(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    with slurm.jobs() as jobs:
        jobs["7"] = {"state": "RUNNING"}
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert requeue()
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert not requeue()
    assert slurm.calls("scontrol") == [["requeue", "7"]]


def job(number: int) -> FrozenJob:
    return FrozenJob(
        number=number, key=str(number), run_id="x", folder=str(number), overrides=[], choices={}, config={}
    )
