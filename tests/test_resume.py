"""`dlrun resume`: which run, what may change, what is refused without touching anything, and what is told of it."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from command_line import CommandLine, Result
from processes import Dlrun, Process

from dlrun import checkpoint
from dlrun.cli import main
from dlrun.registry import models

QUICK = ["tracking=none", "model=perceptron", "data=breast_cancer", "augment=none", "scheduler=none"]
QUICK += ["trainer.max_epochs=2", "hydra.run.dir=run"]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`, byte for byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second", "data_wait")} for row in found]


def summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


@pytest.fixture
def run(dlrun: CommandLine) -> Path:
    """A run of two epochs that is over, in `run`."""
    assert dlrun(*QUICK).code == 0
    return dlrun.folder / "run"


def assert_refused(result: Result, message: str) -> None:
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert result.err.startswith("dlrun: ")
    assert message in result.err


# ---- which run


def test_last_is_the_run_that_began_last(dlrun: CommandLine) -> None:
    names = ("outputs/2031-01-01/a", "outputs/b", "multirun/2020-01-01/0")
    for name, began in zip(
        names, ("2026-11-23T07:00:00+01:00", "2026-11-23T06:59:00+00:00", "2026-11-22"), strict=True
    ):
        words = [word for word in QUICK if not word.startswith("hydra")]
        assert dlrun(*words, f"hydra.run.dir={name}").code == 0
        told = summary(dlrun.folder / name)
        (dlrun.folder / name / "summary.json").write_text(json.dumps(told | {"started": began}))
    (dlrun.folder / "outputs/c").mkdir()
    (dlrun.folder / "outputs/c/summary.json").write_text("{}")  # somebody else's
    result = dlrun("resume", "run=last")
    assert (result.code, "nothing left to do: outputs/b is at the end of its trainer.max_epochs" in result.out) == (
        0,
        True,
    ), result.out
    assert dlrun("resume", "run=last", "trainer.max_epochs=3").code == 0
    assert [len(rows(dlrun.folder / name)) for name in names] == [2, 3, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "resume: say which run: dlrun resume run=DIR (or run=last)"),
        (["run="], "resume: say which run"),
        (["run=run", "run=run"], "resume: say which run"),
        (["run=rum"], "run: no folder 'rum'; did you mean 'run'?"),
        (["run=nowhere/at/all"], "run: no folder 'nowhere/at/all'"),
        (["run=run/checkpoints"], "no run in run/checkpoints: it has no summary.json"),
        (["run=run/summary.json"], "run: run/summary.json is a file; give the run's folder"),
        (["run=last"], "run=last: there is no run in outputs or multirun"),
        (["run=run", "trainer.max_epochs"], "can't read 'trainer.max_epochs'"),
    ],
)
def test_a_wrong_word_is_one_line(dlrun: CommandLine, run: Path, words: list[str], message: str) -> None:
    before = contents(run)
    assert_refused(dlrun("resume", *words), message)
    assert contents(run) == before


def test_a_folder_that_lost_its_config_or_its_summary(dlrun: CommandLine, run: Path) -> None:
    whole = (run / "summary.json").read_text()
    for broken in ("", "{", "[]", "{}", '"run_id"'):
        (run / "summary.json").write_text(broken)
        assert_refused(dlrun("resume", "run=run"), "run/summary.json")
    (run / "summary.json").write_text(whole)
    for broken in ("- a list", "a: [", "\0"):
        (run / "config.yaml").write_text(broken)
        assert_refused(dlrun("resume", "run=run"), "run/config.yaml")
    (run / "config.yaml").unlink()
    assert_refused(dlrun("resume", "run=run"), "run has no config.yaml: nothing to go on with")


# ---- what may change


def test_nothing_is_left_to_do(dlrun: CommandLine, run: Path) -> None:
    before = contents(run)
    for words in ([], ["trainer.max_epochs=2"]):
        result = dlrun("resume", "run=run", *words)
        assert (result.code, "nothing left to do: run is at the end of its trainer.max_epochs" in result.out) == (
            0,
            True,
        )
    after = contents(run)
    assert {name for name in after if after[name] != before.get(name)} == {"dlrun.log"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=1"], "seed: can't change in the middle of a run"),
        (["model=cnn"], "model: can't change in the middle of a run"),
        (["model.name=cnn"], "model.name: can't change in the middle of a run"),
        (["optimizer.lr=0.1"], "optimizer.lr: can't change in the middle of a run"),
        (["data.batch_size=32"], "data.batch_size: can't change in the middle of a run"),
        (["trainer.accumulate_grad_batches=2"], "trainer.accumulate_grad_batches: can't change"),
        (["trainer.ema_decay=0.9"], "trainer.ema_decay: can't change"),
        (
            ["trainer.max_epoch=3"],
            "trainer.max_epoch: can't change in the middle of a run; did you mean 'trainer.max_e",
        ),
        (["init_from=run"], "init_from: can't change"),
        (["hydra.run.dir=other"], "hydra.run.dir: this run has no hydra"),
        (["+trainer.max_epochs=3"], "resume: '+trainer.max_epochs=3' isn't KEY=VALUE"),
        (["~trainer.max_epochs"], "resume: '~trainer.max_epochs' isn't KEY=VALUE"),
        (["trainer.max_epochs=3,4"], "resume: 'trainer.max_epochs=3,4' isn't KEY=VALUE"),
        (["tracking.wandb.mode=online"], "tracking.wandb.mode: this run has no wandb"),
        (["trainer.max_epochs=1"], "trainer.max_epochs: 7 steps, but 14 are done already; only more can be"),
        (["trainer.max_epochs=null"], "trainer.max_epochs: set it or trainer.max_steps; both are null"),
        (["trainer.max_epochs=many"], "trainer.max_epochs: expected a whole number >= 1 or null, got 'many'"),
        (["trainer.max_epochs=3", "trainer.max_time=soon"], "trainer.max_time: expected a time > 0"),
        (["trainer.max_epochs=3", "device=cuda"], "device: 'cuda' isn't available"),
        (["trainer.max_epochs=3", "plugins=[no_such_module]"], "plugins: can't import 'no_such_module'"),
        (["trainer.max_steps=3"], "3 steps, but 14 are done already"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_may_not_change_is_refused_and_nothing_is_touched(
    dlrun: CommandLine, run: Path, words: list[str], message: str
) -> None:
    before = contents(run)
    assert_refused(dlrun("resume", "run=run", *words), message)
    assert contents(run) == before


def test_changes_are_told(dlrun: CommandLine, run: Path) -> None:
    first = summary(run)
    result = dlrun("resume", "run=run", "trainer.max_epochs=3", "notes=longer", "tags=[a,b]")
    assert result.code == 0, result.err
    assert "extended to 3 epochs, 21 steps instead of 14; the learning rate (none) doesn't depend on that" in result.out
    result = dlrun("resume", "run=run", "trainer.max_epochs=5", "trainer.num_threads=3")
    assert result.code == 0, result.err
    assert "with another trainer.num_threads (3, it was " in result.out
    config, told = yaml.safe_load((run / "config.yaml").read_text()), summary(run)
    assert (config["trainer"]["max_epochs"], config["notes"], config["tags"]) == (5, "longer", ["a", "b"])
    assert checkpoint.load(run / "checkpoints/last.pt")["config"] == config
    assert told["resumed"] == [
        {"step": 14, "command": ["dlrun", "resume", "run=run", "trainer.max_epochs=3", "notes=longer", "tags=[a,b]"]},
        {"step": 21, "command": ["dlrun", "resume", "run=run", "trainer.max_epochs=5", "trainer.num_threads=3"]},
    ]
    for key in ("run_id", "started", "command"):
        assert told[key] == first[key]
    assert (told["status"], told["epochs"], told["steps"]) == ("finished", 5, 35)
    assert told["seconds"] > checkpoint.load(run / "checkpoints/last.pt")["progress"]["seconds"]
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3", "4", "5"]

    words = [*QUICK[:-2], "trainer.max_epochs=5", "hydra.run.dir=fresh"]
    assert dlrun(*words).code == 0
    assert rows(run) == rows(dlrun.folder / "fresh")
    weights = [checkpoint.load(dlrun.folder / name / "checkpoints/last.pt")["model"] for name in ("run", "fresh")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_what_depends_on_the_length_is_extended_only_when_it_is_said_how(dlrun: CommandLine) -> None:
    words = [word for word in QUICK if not word.startswith("scheduler")]
    assert dlrun(*words, "scheduler=cosine").code == 0
    before = contents(dlrun.folder / "run")
    result = dlrun("resume", "run=run", "trainer.max_epochs=4")
    assert_refused(result, "scheduler=cosine was made for 14 steps; say how it goes on after step 14")
    assert contents(dlrun.folder / "run") == before
    assert dlrun("resume", "run=run", "trainer.max_epochs=4", "scheduler.total_steps=28").code == 0
    rates = [float(row["lr"]) for row in rows(dlrun.folder / "run")]
    assert len(rates) == 4
    assert rates[2] == pytest.approx(0.003 * (1 + torch.cos(torch.tensor(20 / 28 * torch.pi)).item()) / 2, rel=1e-4)


# ---- code, data


def test_plugins_need_the_users_own_word(dlrun: CommandLine) -> None:
    (dlrun.folder / "trap.py").write_text(
        "from pathlib import Path\nPath('sprung').touch()\nfrom torch import nn\nfrom dlrun.registry import models\n\n"
        "@models.register('trap')\ndef trap(spec):\n    '''A trap.'''\n    return nn.Linear(30, 2)\n"
    )
    assert dlrun(*QUICK, "model.name=trap", "plugins=[trap]").code == 0
    (dlrun.folder / "sprung").unlink()
    sys.modules.pop("trap")
    before = contents(dlrun.folder / "run")
    for words in ([], ["trainer.max_epochs=3"]):
        assert_refused(dlrun("resume", "run=run", *words), "if you trust them, say so: plugins=[trap]")
    dlrun.monkeypatch.delitem(models._builders, "trap")
    assert_refused(dlrun("resume", "run=run", "trainer.max_epochs=3", "plugins=[json]"), "unknown model 'trap'")
    assert not (dlrun.folder / "sprung").exists()
    assert contents(dlrun.folder / "run") == before
    result = dlrun("resume", "run=run", "trainer.max_epochs=3", "plugins=[trap]")
    assert result.code == 0, result.err
    assert (dlrun.folder / "sprung").exists()
    assert len(rows(dlrun.folder / "run")) == 3


def test_data_that_changed_is_noticed(dlrun: CommandLine) -> None:
    lines = [f"{word} number {i},{word}" for i in range(40) for word in ("good", "bad")]
    reviews = dlrun.folder / "reviews.csv"
    reviews.write_text("text,label\n" + "\n".join(lines) + "\n")
    words = ["data=text_csv", "data.file=reviews.csv", *(word for word in QUICK if not word.startswith("data="))]
    result = dlrun(*words)
    assert result.code == 0, result.err
    before = contents(dlrun.folder / "run")
    for old, new in (("good number 3,good", "good number 3,bad"), ("good number 3,good", "fine number 3,good")):
        reviews.write_text("text,label\n" + "\n".join(lines).replace(old, new) + "\n")
        result = dlrun("resume", "run=run", "trainer.max_epochs=3")
        assert_refused(result, "isn't what it was when the run began, so it can't be resumed")
        assert contents(dlrun.folder / "run") == before
    (dlrun.folder / "moved").mkdir()
    (dlrun.folder / "moved/reviews.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    reviews.unlink()
    assert_refused(dlrun("resume", "run=run", "trainer.max_epochs=3"), "data.file: can't read reviews.csv")
    assert contents(dlrun.folder / "run") == before
    result = dlrun("resume", "run=run", "trainer.max_epochs=3", "data.file=moved/reviews.csv")
    assert result.code == 0, result.err
    assert len(rows(dlrun.folder / "run")) == 3


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(dlrun: CommandLine) -> None:
    (dlrun.folder / "stuck.py").write_text(
        "import os, time\nfrom pathlib import Path\nfrom torch import nn\nfrom dlrun.registry import models\n\n"
        "class Stuck(nn.Linear):\n    passes = 0\n    def forward(self, x):\n        self.passes += 1\n"
        "        if os.environ.get('STUCK') and self.passes == 5:\n            Path('here').touch()\n"
        "            time.sleep(600)\n        return super().forward(x)\n\n"
        "@models.register('stuck')\ndef stuck(spec):\n    '''Sticks.'''\n    return Stuck(30, 2)\n"
    )
    words = ["model.name=stuck", "plugins=[stuck]"]
    process = Dlrun(dlrun.folder, *QUICK, *words, environment={"STUCK": "1"})
    process.until((dlrun.folder / "here").exists)
    process.send(signal.SIGKILL)
    assert process.wait() == 128 + signal.SIGKILL
    run = dlrun.folder / "run"
    assert (summary(run)["status"], list((run / "checkpoints").iterdir())) == ("running", [])
    result = dlrun("resume", "run=run", "plugins=[stuck]")
    assert result.code == 0, result.err
    assert "resume: there is no checkpoint yet; the run begins again" in result.out
    assert dlrun(*QUICK[:-1], *words, "hydra.run.dir=fresh").code == 0
    assert rows(run) == rows(dlrun.folder / "fresh")
    assert (summary(run)["status"], len(rows(run))) == ("finished", 2)


def on_a_full_disk(folder: Path, size: int, words: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    os.chdir(folder)
    sys.argv = ["dlrun", *words]
    main()


@pytest.mark.parametrize(("size", "code"), [(0, 2), (100, 1)])
def test_a_full_disk_costs_a_resume_and_not_the_run(dlrun: CommandLine, run: Path, size: int, code: int) -> None:
    """Not even the lock can be noted; or that much fits, but no summary."""
    before = contents(run)
    process = Process(on_a_full_disk, dlrun.folder, size, ["resume", "run=run", "trainer.max_epochs=3"])
    assert process.wait() == code, process.output
    assert "File too large" in process.output
    if code == 2:
        assert process.output == "dlrun: run: can't write to run (File too large)\n"
    ours = {".lock", "dlrun.log"}
    assert {k: v for k, v in contents(run).items() if k not in ours} == {
        k: v for k, v in before.items() if k not in ours
    }
    assert dlrun("resume", "run=run", "trainer.max_epochs=3").code == 0
    assert len(rows(run)) == 3


# ---- secrets

SECRETS = {
    "WANDB_API_KEY": "5ec7e7wandb" + "0" * 29,
    "HF_TOKEN": "hf_5ec7e7huggingface",
    "AWS_SECRET_ACCESS_KEY": "5ec7e7aws",
}


@pytest.mark.parametrize("tracking", ["[wandb,tensorboard]", "tensorboard"])
def test_no_secret_is_in_any_file(dlrun: CommandLine, tracking: str) -> None:
    for name, value in SECRETS.items():
        dlrun.monkeypatch.setenv(name, value)
    dlrun.monkeypatch.setenv("HOME", str(dlrun.folder / "home"))
    words = ["tracking.wandb.mode=offline"] if "wandb" in tracking else []
    result = dlrun(*QUICK[1:], f"tracking={tracking}", *words)
    assert result.code == 0, result.err
    assert dlrun("resume", "run=run", "trainer.max_epochs=3").code == 0
    found = contents(dlrun.folder)
    assert any("tfevents" in name for name in found)
    assert any(name.endswith(".wandb") for name in found) == ("wandb" in tracking)
    for name, content in found.items():
        assert b"5ec7e7" not in content, name
    assert "5ec7e7" not in result.out + result.err
    if "wandb" in tracking:
        wandb.teardown()


# ---- what was changed behind its back


def test_a_config_that_was_edited_by_hand_is_held_against_the_checkpoint(dlrun: CommandLine, run: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("lr: 0.003", "lr: 0.3"))
    before = contents(run)
    assert_refused(
        dlrun("resume", "run=run", "trainer.max_epochs=3"),
        "optimizer.lr: config.yaml says 0.3, and the run was begun with 0.003",
    )
    assert contents(run) == before
    (run / "config.yaml").write_text(text.replace("max_epochs: 2", "max_epochs: 3"))  # that may change
    assert dlrun("resume", "run=run", "notes=x").code == 0
    assert summary(run)["epochs"] == 3


def test_metrics_that_are_gone_or_rubbish_are_told_and_new_ones_written(dlrun: CommandLine, run: Path) -> None:
    (run / "metrics.csv").unlink()
    result = dlrun("resume", "run=run", "trainer.max_epochs=3")
    assert (result.code, "metrics.csv is missing, with the rows of 2 epochs" in result.out) == (0, True)
    assert [row["epoch"] for row in rows(run)] == ["3"]
    (run / "metrics.csv").write_bytes(b"\xff\xfe\x80" * 50)
    result = dlrun("resume", "run=run", "trainer.max_epochs=4")
    assert (result.code, "it is now metrics.damaged" in result.out) == (0, True)
    assert [row["epoch"] for row in rows(run)] == ["4"]
    assert (run / "metrics.damaged").read_bytes() == b"\xff\xfe\x80" * 50


def test_a_missing_checkpoint_is_told(dlrun: CommandLine, run: Path) -> None:
    (run / "checkpoints/last.pt").unlink()
    result = dlrun("resume", "run=run", "trainer.max_epochs=3")
    assert result.code == 0
    assert "last.pt is missing\ngoing back to previous.pt, of step 7" in result.out
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]


def test_words_that_change_nothing_may_be_said(dlrun: CommandLine, run: Path) -> None:
    result = dlrun("resume", "run=run", "seed=0", "optimizer.lr=0.003")
    assert (result.code, "nothing left to do" in result.out) == (0, True)


def test_a_tracker_can_be_left_behind(dlrun: CommandLine) -> None:
    words = [word for word in QUICK if word != "tracking=none"]
    assert dlrun(*words, "tracking=tensorboard").code == 0
    assert dlrun("resume", "run=run", "tracking=none", "trainer.max_epochs=3").code == 0
    assert yaml.safe_load((dlrun.folder / "run/config.yaml").read_text())["tracking"] == {}
    assert len(list((dlrun.folder / "run/tensorboard").iterdir())) == 1


def test_a_sweep_is_told_by_its_jobs(dlrun: CommandLine) -> None:
    words = [word for word in QUICK if not word.startswith("hydra")]
    assert dlrun("-m", *words, "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    assert_refused(dlrun("resume", "run=sweep"), "run: sweep is a sweep; resume one of its jobs, run=sweep/… (0, 1)")
    assert dlrun("resume", "run=sweep/1", "trainer.max_epochs=3").code == 0


@pytest.mark.parametrize(
    ("scheduler", "stays"), [("linear", "0.00e+00"), ("cosine", "0.00e+00"), ("onecycle", "1.20e-08")]
)
def test_what_is_said_of_the_learning_rate_after_its_end_is_true(
    dlrun: CommandLine, scheduler: str, stays: str
) -> None:
    assert dlrun(*[word for word in QUICK if word != "scheduler=none"], f"scheduler={scheduler}").code == 0
    result = dlrun("resume", "run=run", "trainer.max_epochs=4")
    assert_refused(
        result, f"scheduler.total_steps=14 keeps to that, and the learning rate stays at {stays} after its end"
    )
    for steps in ("5", "13"):
        refused = dlrun("resume", "run=run", "trainer.max_epochs=4", f"scheduler.total_steps={steps}")
        assert_refused(refused, f"scheduler.total_steps: {steps}, but 14 steps are done already")
    result = dlrun("resume", "run=run", "trainer.max_epochs=4", "scheduler.total_steps=14")
    assert result.code == 0
    assert ("a learning rate of 0 changes nothing" in result.out) == (stays == "0.00e+00")
    assert [float(row["lr"]) for row in rows(dlrun.folder / "run")][2:] == [float(stays)] * 2
