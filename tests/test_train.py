"""A whole run, seen from outside: with W&B on, with signals, with failures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
import wandb
from command_line import CommandLine
from wandb_server import API_KEY, WandbServer

from dlrun.data import tuning
from dlrun.tracking.wandb import session

QUICK = ["data.limit=250", "model=mlp", "model.hidden_sizes=[16]", "trainer.max_epochs=2", "augment=none"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    """Credentials and a server for them."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(session, "PATIENCE", 10.0)  # a busy machine isn't a dead server
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        yield server
        wandb.teardown()


def test_a_run_arrives_at_wandb(dlrun: CommandLine, server: WandbServer) -> None:
    result = dlrun(*QUICK, "trainer.log_every_n_steps=3", "tags=[first]", "tracking.wandb.log_model=true")
    assert result.code == 0, result.err
    summary = dlrun.summary()
    run = server.runs[summary["run_id"]]
    assert (run.exit_code, run.complete, run.job_type, run.tags) == (0, True, "train", ["first"])
    assert run.config["optimizer"]["lr"] == 0.003
    assert [row["step"] for row in run.history if "step/train/loss" in row] == [3, 6]
    epochs = [row for row in run.history if "val/acc" in row]
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert run.summary["best/val/acc"] == max(row["val/acc"] for row in epochs) == summary["best"]["val/acc"]
    assert run.summary["test/acc"] == summary["test"]["test/acc"]
    best = (dlrun.runs()[-1] / "checkpoints/best.pt").read_bytes()
    assert best in run.files.values()
    assert API_KEY not in "".join(p.read_text() for p in dlrun.runs()[-1].rglob("*.yaml")), "no secret in any file"


def test_each_job_of_a_multirun_is_a_run_of_its_own_and_failed_ones_say_so(
    dlrun: CommandLine, server: WandbServer
) -> None:
    # A learning rate of 1e30 is a number > 0; that it doesn't work shows in training.
    assert dlrun("-m", *QUICK, "trainer.gradient_clip_val=null", "optimizer=sgd", "optimizer.lr=0.01,1e30").code == 1
    jobs = [run for run in server.runs.values() if run.job_type == "sweep"]  # there is the sweep's own run, too
    good, bad = sorted(jobs, key=lambda run: run.exit_code or 0)
    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert good.group == bad.group == dlrun.runs("multirun")[0].parent.name
    assert {run.job_type for run in server.runs.values()} == {"sweep", "sweep-summary"}
    assert bad.summary["status"] == "failed"
    assert "training loss is" in bad.summary["error"]


def test_the_best_checkpoint_is_what_was_tested(dlrun: CommandLine) -> None:
    """Computed again from the checkpoint with plain torch and scikit-learn's split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    assert dlrun("tracking=none", "model=perceptron", "trainer.max_epochs=5", "augment=none").code == 0
    summary = dlrun.summary()
    digits = load_digits()
    _, test = train_test_split(range(1797), test_size=0.2, stratify=digits.target, random_state=0)
    state = torch.load(dlrun.runs()[-1] / "checkpoints/best.pt", weights_only=True)
    mean, std = (torch.tensor(state["spec"][key], dtype=torch.float64) for key in ("mean", "std"))
    pixels = torch.from_numpy(digits.images[test].reshape(-1, 64) * 15 / 255)
    inputs = (pixels - mean) / std
    logits = inputs @ state["model"]["1.weight"].double().T + state["model"]["1.bias"].double()
    targets = torch.from_numpy(digits.target[test])
    assert summary["test"]["test/acc"] == (logits.argmax(1) == targets).double().mean().item()
    assert summary["test"]["test/loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits, targets).item(), 1e-5
    )
    assert state["progress"]["epoch"] == summary["best"]["epoch"]


def test_an_image_that_breaks_in_mid_training_fails_the_run_in_one_line(dlrun: CommandLine) -> None:
    from PIL import Image

    for label in ("cat", "dog"):
        (dlrun.folder / "data/train" / label).mkdir(parents=True)
        for i in range(20):
            noise = torch.randint(0, 256, (40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
            Image.fromarray(noise.numpy()).save(dlrun.folder / f"data/train/{label}/{i}.png")
    broken = dlrun.folder / "data/train/cat/3.png"
    whole = broken.read_bytes()  # its beginning and its end are right, its checksum isn't
    middle = len(whole) // 2
    broken.write_bytes(whole[:middle] + bytes(20) + whole[middle + 20 :])
    words = ["tracking=none", "data=image_folder", "data.image_size=[8,8]", "model=perceptron", "data.val_fraction=0.2"]
    result = dlrun(*words, "data.num_workers=2", "augment=none")
    assert result.code == 1
    assert active_children() == []
    assert "3.png" in result.out
    assert "Traceback" not in result.out + result.err
    assert (dlrun.summary()["status"], dlrun.summary()["exit_code"]) == ("failed", 1)


@pytest.mark.parametrize("words", [["data.num_workers=2"], ["-m", "data.num_workers=2,auto", "augment=light"]])
def test_no_loader_process_outlives_its_run(dlrun: CommandLine, words: list[str]) -> None:
    result = dlrun("tracking=none", "model=perceptron", "trainer.max_epochs=2", "data.limit=300", *words)
    assert result.code == 0, result.out + result.err
    assert active_children() == []


def test_the_number_of_loader_processes_that_was_found_is_in_the_log(
    dlrun: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "SECONDS", 0.01)
    words = ["tracking=none", "model=perceptron", "trainer.max_epochs=12"]
    assert dlrun(*words, "augment=light").code == 0
    (said,) = [line for line in (dlrun.runs()[-1] / "dlrun.log").read_text().splitlines() if "num_workers" in line]
    assert re.search(r"data\.num_workers=auto: 0 gives [\d,]+.* samples/s.*: \d+$", said)
    assert active_children() == []


@pytest.mark.parametrize("words", [["augment=none"], ["augment=light", "trainer.fast_dev_run=20"]])
def test_nothing_is_measured_where_there_is_nothing_to_find(
    dlrun: CommandLine, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(tuning, "SECONDS", 0)
    assert dlrun("tracking=none", "model=perceptron", "trainer.max_epochs=2", *words).code == 0
    assert "num_workers=auto" not in (dlrun.runs()[-1] / "dlrun.log").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_with_a_checkpoint(number: signal.Signals, code: int, tmp_path: Path) -> None:
    words = ["tracking=none", "model=perceptron", "trainer.max_epochs=100000", "trainer.num_threads=1"]
    source = str(Path(__file__).resolve().parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-m", "dlrun", *words],  # from a checkout, installed or not
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("outputs/*/*/checkpoints/last.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Traceback" not in output
    (path,) = tmp_path.glob("outputs/*/*/summary.json")
    summary = json.loads(path.read_text())
    assert (summary["status"], summary["exit_code"], summary["error"]) == ("preempted", code, number.name)
    last = torch.load(path.parent / "checkpoints/last.pt", weights_only=True)
    assert last["progress"]["step"] == summary["steps"] > 0
