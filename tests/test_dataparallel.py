"""Several processes against one: the same weights, the same metrics, one folder; and how they stop, fail and go on."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CommandLine
from equality import CLOCKS, files
from ranks import Torchrun

from dlrun.build import refuse_unshared
from dlrun.config import parse
from dlrun.data.order import part
from dlrun.distributed import Ranks
from dlrun.errors import UserError

# 166 samples in batches of 32: the last has 6, of which three processes get 2 each, and four of them only three any.
SHORT = ["tracking=none", "trainer.enable_progress_bar=false", "data.limit=206", "data.val_fraction=0.2"]
SHORT += ["data.batch_size=32", "trainer.max_epochs=null", "trainer.max_steps=30", "optimizer=sgd"]
MLP = ["model=mlp", "model.dropout=0", "model.hidden_sizes=[32]"]
CASES = {
    # 30 steps of SGD in float32, whose sums are in another order: 1e-5 of a tensor's largest weight, and not more.
    "all at once": [
        *MLP,
        "trainer.accumulate_grad_batches=2",
        "trainer.ema_decay=0.9",
        "trainer.gradient_clip_val=0.1",
    ],
    "transformer": ["model=transformer", "model.dropout=0", "model.d_model=16", "model.d_ff=16", "optimizer.lr=0.02"],
    "freezing": [*MLP, "trainer.freeze={1: 1}", "optimizer.l1=0.001", "task.class_weights=balanced"],
    "muon": [*MLP, "optimizer=muon", "optimizer.lr=1e-4", "trainer.max_steps=6"],
    "lstm": ["model=lstm", "model.dropout=0", "model.hidden_size=16", "augment=light"],
    "text": ["model=lstm", "model.dropout=0", "model.hidden_size=16", "data=pydocs", "augment=none"],
    "loaders": [*MLP, "augment=light", "data.num_workers=1"],
}


def state(run: Path, name: str = "last") -> dict[str, Any]:
    return dict(torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in CLOCKS} for row in csv.DictReader(file)]


def summary(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text()))


def trained(size: int, folder: Path, *words: str) -> Torchrun:
    """`dlrun WORDS` in so many processes, which end well; only the first of them says anything."""
    run = Torchrun(size, folder, *words)
    assert run.wait() == [0] * size, run.ranks[0].output
    assert [rank.output for rank in run.ranks[1:]] == [""] * (size - 1)
    return run


def assert_same(one: Path, several: Path, tolerance: float = 1e-5) -> None:
    """The same training, apart from the order in which floats were added up."""
    states = [state(run) for run in (one, several)]
    for part_of in ("model", "ema"):
        tensors = [s[part_of] or {} for s in states]
        tensors = [t["average"] if "average" in t else list(t.values()) for t in tensors]
        for mine, theirs in zip(*tensors, strict=True):
            assert (mine - theirs).abs().max() <= tolerance * mine.abs().max()
    for row, other in zip(rows(one), rows(several), strict=True):
        assert row.keys() == other.keys()
        for name in row:
            exact = not name.endswith("/loss")
            assert row[name] == other[name] if exact else float(row[name]) == pytest.approx(float(other[name]), 1e-5)
    mine, theirs = (summary(run)["test"] for run in (one, several))
    assert theirs["test/acc"] == mine["test/acc"]
    assert theirs["test/loss"] == pytest.approx(mine["test/loss"], 1e-5)
    assert files(several) == files(one)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 64])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_batch_is_shared_out_whole(count: int, size: int) -> None:
    parts = [part(100, 100 + count, rank, size) for rank in range(size)]
    assert [i for first, last in parts for i in range(first, last)] == list(range(100, 100 + count))
    sizes = [last - first for first, last in parts]
    some = [number for number in sizes if number]
    assert sizes[0]
    assert max(some) - min(some) <= 1
    assert 1 not in sizes or count == 1  # batch norm can't train on one


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("all at once", 2),
        ("all at once", 3),
        *[pytest.param(name, size, marks=pytest.mark.slow) for name in CASES for size in (2, 4)],
    ],
)
def test_several_processes_follow_one(name: str, size: int, dlrun: CommandLine) -> None:
    words = [*SHORT, *CASES[name]]
    assert dlrun(*words, "hydra.run.dir=one").code == 0
    trained(size, dlrun.folder, *words, "hydra.run.dir=several")
    assert_same(dlrun.folder / "one", dlrun.folder / "several")


def test_stopped_and_resumed_by_another_number_of_processes(dlrun: CommandLine) -> None:
    """One rank gets a signal, all save once; what goes on in one process or three ends where nobody stopped it."""
    words = [
        *SHORT,
        *MLP,
        "trainer.max_steps=4000",
        "trainer.log_every_n_steps=1",
        "scheduler=none",
        "optimizer.lr=1e-4",
    ]
    run = Torchrun(2, dlrun.folder, *words, "hydra.run.dir=several")
    try:
        metrics = dlrun.folder / "several" / "metrics.csv"
        run.ranks[0].until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2)
        run.ranks[1].send(signal.SIGTERM)
        assert run.wait() == [143, 143], run.ranks[0].output
    finally:
        run.kill()
    several = dlrun.folder / "several"
    told, step = summary(several), state(several)["progress"]["step"]
    assert (told["status"], told["error"], told["steps"]) == ("preempted", "SIGTERM", step)
    assert run.ranks[0].output.count("stopped by SIGTERM") == 1
    assert run.ranks[1].output == ""
    end = step + 10
    change = f"trainer.max_steps={end}"
    trained(3, dlrun.folder, "resume", "run=several", change)
    assert dlrun(*words[:-4], *words[-3:], f"trainer.max_steps={end}", "hydra.run.dir=one").code == 0
    assert state(several)["progress"]["step"] == end
    log = (several / "dlrun.log").read_text()
    assert log.count(f"goes on after step {step} ") == 1
    assert "with another number of processes (3, it was 2)" in log
    mine, theirs = (state(dlrun.folder / name)["model"] for name in ("one", "several"))
    for name, tensor in mine.items():
        assert (tensor - theirs[name]).abs().max() <= 1e-4 * tensor.abs().max()


def test_a_rank_that_is_killed_ends_all(dlrun: CommandLine) -> None:
    words = [*SHORT, *MLP, "trainer.max_steps=100000", "trainer.checkpoint_every_n_steps=10", "scheduler=none"]
    run = Torchrun(3, dlrun.folder, *words, "hydra.run.dir=several")
    several = dlrun.folder / "several"
    try:
        run.ranks[0].until((several / "checkpoints" / "last.pt").exists)
        run.ranks[1].send(signal.SIGKILL)
        assert run.wait() == [1, 137, 1], run.ranks[0].output
    finally:
        run.kill()
    assert summary(several)["status"] == "failed"
    assert "another process of this training is gone" in summary(several)["error"]
    assert run.ranks[2].output == ""
    trained(2, dlrun.folder, "resume", "run=several", f"trainer.max_steps={state(several)['progress']['step'] + 5}")


FAILING = """
from torch import nn
import os
from dlrun.registry import models

class Failing(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.layer = nn.Linear(64, spec.num_outputs)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if os.environ.get("RANK") == "1" and self.calls == 4:
            raise ValueError("a picture that nobody can read")
        return self.layer(x.flatten(1))

@models.register("failing")
def failing(spec):
    \"\"\"Fails on rank 1.\"\"\"
    return Failing(spec)
"""


def test_a_rank_that_raises_ends_all_with_its_own_error(dlrun: CommandLine) -> None:
    (dlrun.folder / "failing_models.py").write_text(FAILING)
    (dlrun.folder / "mine" / "model").mkdir(parents=True)
    (dlrun.folder / "mine" / "model" / "failing.yaml").write_text("name: failing\n")
    words = [*SHORT, "model=failing", "plugins=[failing_models]", "--config-dir", "mine", "hydra.run.dir=several"]
    run = Torchrun(2, dlrun.folder, *words)
    try:
        assert run.wait() == [1, 1]
    finally:
        run.kill()
    told = summary(dlrun.folder / "several")
    assert told["error"] == "RankFailed: rank 1 failed: ValueError: a picture that nobody can read"
    assert 'raise ValueError("a picture that nobody can read")' in run.ranks[0].output  # with its traceback
    assert run.ranks[0].output.count("Traceback") == 1
    assert run.ranks[1].output == ""


def test_a_mistake_is_told_once_and_leaves_nothing(dlrun: CommandLine) -> None:
    for words, said in (
        (["trainer.on_oom=halve"], "trainer.on_oom=halve: isn't supported in 2 processes yet"),
        (["optimizer.lr=abc"], "optimizer.lr: "),
    ):
        run = Torchrun(2, dlrun.folder, *SHORT, *MLP, *words)
        assert run.wait() == [2, 2], run.ranks[0].output
        assert run.ranks[0].output.startswith(f"dlrun: {said}"), run.ranks[0].output
        assert run.ranks[0].output.count("\n") == 1
        assert run.ranks[1].output == ""
        assert not (dlrun.folder / "outputs").exists()


def test_what_several_cannot_do_yet_is_refused(compose_config: Callable[..., dict[str, Any]]) -> None:
    ranks = Ranks(0, 2, 0, store=None)
    for word in (
        *("trainer.compile=true", "trainer.on_oom=halve", "precision=fp16", "precision=bf16_weights"),
        *("augment.mixup=0.2", "augment.cutmix=1.0", "data.batch_size=3"),
    ):
        with pytest.raises(UserError, match=word.partition("=")[0]):
            refuse_unshared(parse(compose_config(word)), ranks)
    with pytest.raises(UserError, match=r"data\.cache=ram"):
        refuse_unshared(parse(compose_config("data=image_folder", "data.cache=ram")), ranks)
    refuse_unshared(parse(compose_config("precision=bf16", "data.batch_size=4")), ranks)


def test_what_one_process_does_is_refused_to_several(dlrun: CommandLine) -> None:
    dlrun.monkeypatch.setenv("WORLD_SIZE", "2")
    for words in (["-m", "seed=1,2"], ["eval", "run=last"], ["--cfg", "job"], ["list"]):
        ended = dlrun(*words)
        assert (ended.code, "torchrun started 2" in ended.err) == (2, True), words
    missing = dlrun("model=mlp")
    assert missing.code == 2
    assert "no RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT" in missing.err
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        dlrun.monkeypatch.setenv(name, "0")
    assert "LOCAL_WORLD_SIZE=1: one training on several machines isn't supported" in dlrun("model=mlp").err


@pytest.mark.slow
def test_torchrun_itself(tmp_path: Path) -> None:
    """SIGTERM to torchrun: saved once, preempted; then resumed by torchrun, which ends with 0."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dlrun"]
    words = [*SHORT, *MLP, "trainer.max_steps=1000000", "scheduler=none", "hydra.run.dir=run"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen([*torchrun, *words], cwd=tmp_path, stdout=said, stderr=said)
        checkpoint = tmp_path / "run" / "checkpoints" / "best.pt"
        while not checkpoint.exists():
            assert process.poll() is None, (tmp_path / "said").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    told = summary(tmp_path / "run")
    assert (told["status"], told["error"]) == ("preempted", "SIGTERM")
    assert (tmp_path / "said").read_text().count("stopped by SIGTERM") == 1
    end = state(tmp_path / "run")["progress"]["step"] + 5
    assert end == told["steps"] + 5
    subprocess.run([*torchrun, "resume", "run=run", f"trainer.max_steps={end}"], cwd=tmp_path, check=True, timeout=120)
    assert summary(tmp_path / "run")["status"] == "finished"


@pytest.mark.slow
def test_a_job_of_a_sweep_may_be_several_processes(dlrun: CommandLine) -> None:
    words = [*SHORT, *MLP, "seed=0,1", "-m"]
    assert dlrun(*words, "hydra.sweep.dir=one").code == 0
    assert dlrun(*words, "hydra.sweep.dir=several", "hydra.launcher.processes=2").code == 0
    for job in ("0", "1"):
        assert_same(dlrun.folder / "one" / job, dlrun.folder / "several" / job)
        assert "in each of 2 processes" in (dlrun.folder / "several" / job / "dlrun.log").read_text()
