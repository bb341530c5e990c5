"""Grids of real processes: some of their jobs raise, are killed, or crash; conf/ is edited under them; Ctrl-C."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import yaml
from command_line import CommandLine
from equality import differences
from failing_jobs import FRAGILE, TINY, events, summaries
from processes import Dlrun

from dlrun.sweep.folder import SweepFolder


def test_three_ways_to_fail_then_exactly_these_run_again_and_an_edited_yaml_changes_nothing(dlrun: CommandLine) -> None:
    (dlrun.folder / "fragile.py").write_text(FRAGILE)
    config = dlrun.folder / "mine/model/fragile.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("name: fragile\nwidth: 8\nfate: none\n")
    (dlrun.folder / "armed").touch()
    result = dlrun(
        *("-m", "--config-dir", "mine", "plugins=[fragile]", *TINY, "hydra.sweep.dir=sweep", "hydra.launcher.jobs=2"),
        *("model=fragile", "model.fate=raise,none,kill,also_none,crash,none_either"),
    )
    assert result.code == 1, result.out
    folder = SweepFolder(dlrun.folder / "sweep")
    ended = summaries(folder)
    assert [ended[name]["status"] for name in "012345"] == ["failed", "finished"] * 3
    assert ended["0"]["error"] == "ValueError: as fated"
    assert ended["2"]["error"].startswith("killed by SIGKILL (out of memory, if nobody else did it); see ")
    assert ended["4"]["error"].startswith("killed by SIGSEGV; see ")
    assert "ValueError: as fated" in (dlrun.folder / "sweep/0/dlrun.log").read_text(), "the traceback is in the log"
    assert "Segmentation fault" in (dlrun.folder / "sweep/4/console.log").read_text()
    assert "no_such_option" in config.read_text(), "it was edited in the middle"
    before = {name: (dlrun.folder / f"sweep/{name}/summary.json").stat().st_mtime_ns for name in "135"}

    (dlrun.folder / "armed").unlink()
    result = dlrun("sweep", "resume", "run=sweep")
    assert (result.code, "say so: plugins=[fragile]" in result.err) == (2, True), result.err
    result = dlrun("sweep", "resume", "run=sweep", "plugins=[fragile]")
    assert result.code == 0, result.out + result.err
    assert "3 jobs to run (3 of 6 are done)" in result.out
    assert events(folder, "started") == {0: 2, 1: 1, 2: 2, 3: 1, 4: 2, 5: 1}
    assert {name: (dlrun.folder / f"sweep/{name}/summary.json").stat().st_mtime_ns for name in "135"} == before
    assert {summary["status"] for summary in summaries(folder).values()} == {"finished"}
    configs = [yaml.safe_load((dlrun.folder / f"sweep/{name}/config.yaml").read_text()) for name in "012345"]
    assert {config["model"]["width"] for config in configs} == {8}
    assert all("no_such_option" not in config["model"] for config in configs)
    # The fate aside all six are the same run, so those that were broken off have come to the same weights.
    assert not [line for line in differences(dlrun.folder / "sweep/0", dlrun.folder / "sweep/1") if "files" not in line]
    assert not [line for line in differences(dlrun.folder / "sweep/2", dlrun.folder / "sweep/1") if "files" not in line]


def test_ctrl_c_and_resume_come_to_what_an_undisturbed_sweep_comes_to(dlrun: CommandLine) -> None:
    words = ["-m", *TINY, "model=mlp", "model.hidden_sizes=[16]", "seed=0,1,2", "trainer.max_epochs=40"]
    assert dlrun(*words, "hydra.sweep.dir=whole").code == 0
    process = Dlrun(dlrun.folder, *words, "hydra.sweep.dir=broken")
    second = dlrun.folder / "broken/1/metrics.csv"
    process.until(lambda: second.exists() and len(second.read_text().splitlines()) > 3)
    process.send(signal.SIGINT)
    assert process.wait() == 130, process.output
    broken = SweepFolder(dlrun.folder / "broken")
    assert broken.read()["status"] == "interrupted"
    assert json.loads((dlrun.folder / "broken/1/summary.json").read_text())["status"] == "preempted"
    assert not (dlrun.folder / "broken/2").exists()
    assert "to go on: dlrun sweep resume run=broken" in process.output
    assert dlrun("sweep", "resume", "run=broken").code == 0
    assert events(broken, "started") == {0: 1, 1: 2, 2: 1}
    whole = SweepFolder(dlrun.folder / "whole")
    for job in whole.read_jobs():
        found = differences(whole.path / job.folder, broken.path / job.folder)
        assert not [line for line in found if ".files" not in line and "files" not in line], found


def test_a_sweep_with_one_typo_starts_nothing(dlrun: CommandLine) -> None:
    for words, message in [
        (
            ["model=mlp", "model.hidden_sizes=[16],[16,0]"],
            "(job 2 of 2: model.hidden_sizes=[16,0]; nothing was started)",
        ),
        (["model=mlp", "data=digits,pydoc"], "unknown data 'pydoc'; did you mean 'pydocs'?"),
        (["optimizer.lr=interval(0,1)"], "hydra/sweeper=optuna searches between two"),
        (["model=mlp", "trainer.monitor=val/acc,val/f1"], "trainer.monitor: unknown metric 'val/f1'"),
        (["seed=0,1", "sweep.on_error=never"], "sweep.on_error: expected"),
        (["seed=0,1", "sweep.retries=3"], "unknown option 'sweep.retries'"),
        (["seed=0,1", "hydra/launcher=locl"], "unknown hydra/launcher 'locl'; did you mean 'local'?"),
        (["seed=0,1", "hydra.sweep.subdir=same"], "hydra.sweep.subdir: several jobs would have one folder"),
        (["seed=0,1", "hydra.job.chdir=true"], "hydra.job.chdir: isn't for sweeps: jobs stay in the folder"),
        (["seed=0,1", "+hydra.job.env_set.A=b"], "hydra.job.env_set: isn't for sweeps: jobs have the environment"),
        (["seed=0,1", "hydra/job_logging=disabled"], "hydra/job_logging: isn't for sweeps: each job logs"),
        (["seed=0,1", "+hydra.sweeper.params={seed: '0,1'}"], "Hydra can't work with this config"),
        (["seed=0,1", "sweep.extend=nowhere"], "run: no folder 'nowhere'"),
    ]:
        result = dlrun("-m", *TINY, *words)
        assert (result.code, message in result.err) == (2, True), result.err
        assert list(dlrun.folder.iterdir()) == []


def test_what_is_no_sweep_is_refused(dlrun: CommandLine, tmp_path: Path) -> None:
    for words, message in [
        (["resume"], "sweep resume: say which sweep"),
        (["resume", "run=last"], "run=last: there is no sweep in multirun"),
        (["resume", "run=."], "run: . isn't a sweep, but a folder without sweep.json"),
        (["resum", "run=."], "sweep: expected a verb, got 'resum'; did you mean 'resume'?"),
        ([], "sweep: expected a verb"),
    ]:
        result = dlrun("sweep", *words)
        assert (result.code, message in result.err) == (2, True), result.err
