"""`dlrun compress`: a run folder of its own that every command takes, or nothing at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import CommandLine
from equality import differences

import dlrun.trainer as dlrun_trainer
from dlrun.build import example
from dlrun.commands.compress import Options
from dlrun.compressing import METHODS
from dlrun.layers import count
from dlrun.loading import load_run

QUIET = ["tracking=none", "trainer.enable_progress_bar=false"]
TINY = [*QUIET, "data.limit=200", "model.channels=[8,16]", "model.hidden_size=24", "trainer.max_epochs=2"]


@pytest.fixture
def parent(dlrun: CommandLine) -> Path:
    assert dlrun(*TINY, "hydra.run.dir=parent").code == 0
    return dlrun.folder / "parent"


def compressed(dlrun: CommandLine, *words: str, run: str = "parent", code: int = 0) -> Path:
    """The folder that came of it."""
    before = set(dlrun.folder.glob("**/compress/*"))
    result = dlrun("compress", f"run={run}", "bench=false", *words)
    assert result.code == code, result.err
    (child,) = set(dlrun.folder.glob("**/compress/*")) - before
    return child


def summary(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "summary.json").read_text()))


def test_a_pruned_run_is_a_run(dlrun, parent):
    before = {path: path.read_bytes() for path in parent.rglob("*") if path.is_file()}
    child = compressed(dlrun, "method=prune_structured", "amount=0.5")
    told, run, whole = summary(child), load_run(child, device="cpu"), load_run(parent, device="cpu")
    assert child.name == f"prune_structured-{told['run_id']}"
    assert (told["status"], told["exit_code"], told["epochs"]) == ("finished", 0, 3)
    assert (child / told["parent"]["path"]).resolve() == parent.resolve()
    assert told["parent"]["run_id"] == whole.run_id == run.config.compression.parent
    sizes = [sum(p.numel() for p in r.network.parameters()) for r in (whole, run)]
    facts = told["compression"]
    assert [facts["parameters_before"], facts["parameters"]] == sizes
    assert sizes[1] < 0.35 * sizes[0]
    assert facts["bytes"] < 0.6 * facts["bytes_before"]
    flops = [count(net.network, example(net.spec)).total.flops for net in (run, whole)]
    assert flops[0] < 0.35 * flops[1]
    assert (facts["method"], facts["amount"]) == ("prune_structured", 0.5)
    # What was told of both is what comes of loading them.
    for loaded, metrics in ((whole, facts["test_before"]), (run, told["test"])):
        assert loaded.evaluator().evaluate(loaded.batches("test"), "test") == pytest.approx(metrics)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_table(dlrun, parent):
    result = dlrun("compress", "run=parent", "method=prune_structured", "amount=0.5", "bench=false")
    rows = {line.split("  ")[0]: line.split() for line in result.out.splitlines()[-6:]}
    told = summary(next((parent / "compress").iterdir()))
    assert rows["parameters"][1:3] == [f"{told['compression'][key]:,}" for key in ("parameters_before", "parameters")]
    assert set(rows) == {"", "parameters", "bytes of weights", "FLOPs per sample", "zeros among weights", "test/acc"}
    assert rows["test/acc"][2] == f"{told['test']['test/acc']:.2%}"


def test_fine_tuned_on_digits_it_is_as_good(dlrun):
    """A net that was trained for a few epochs loses half of its channels, and gets nearly all of its accuracy back."""
    words = ["experiment=digits_cnn", "trainer.max_epochs=12", "hydra.run.dir=parent"]
    assert dlrun(*words, *QUIET).code == 0
    child = compressed(dlrun, "method=prune_structured", "amount=0.5", "finetune_epochs=15")
    told = summary(child)
    assert told["compression"]["parameters"] <= 0.35 * told["compression"]["parameters_before"]
    assert told["compression"]["test_before"]["test/acc"] > 0.97
    assert told["test"]["test/acc"] >= told["compression"]["test_before"]["test/acc"] - 0.01


def test_without_fine_tuning(dlrun, parent):
    child = compressed(dlrun, "method=prune_unstructured", "amount=0.25", "finetune_epochs=0")
    told, run = summary(child), load_run(child, device="cpu")
    assert (told["status"], told["epochs"], told["steps"], told["best"]["epoch"]) == ("finished", 0, 0, 0)
    assert (run.config.compression.sparse, run.config.compression.amount) == (True, 0.25)
    start = torch.load(child / "checkpoints/initial.pt", weights_only=True)
    assert all(torch.equal(start[name], tensor) for name, tensor in run.network.state_dict().items())
    assert run.evaluator().evaluate(run.batches("test"), "test") == pytest.approx(told["test"])
    assert dlrun("resume", f"run={child}").code == 0  # nothing left to do
    assert dlrun("resume", f"run={child}", "trainer.max_epochs=2", "scheduler.total_steps=8").code == 0
    assert summary(child)["epochs"] == 2


def test_a_run_that_was_moved_goes_on(dlrun, parent):
    """It begins with what lies in its own folder, and nobody's config.yaml says where else to read."""
    child = compressed(dlrun, "method=prune_unstructured", "amount=0.5", "finetune_epochs=0")
    moved = parent.rename(dlrun.folder / "moved") / "compress" / child.name
    config = yaml.safe_load((moved / "config.yaml").read_text())
    assert config["init_from"] is None
    result = dlrun("resume", f"run={moved}", "trainer.max_epochs=2", "scheduler.total_steps=8")
    assert result.code == 0, result.err
    start, run = torch.load(moved / "checkpoints/initial.pt", weights_only=True), load_run(moved, device="cpu")
    assert summary(moved)["epochs"] == 2
    assert sum(int((t == 0).sum()) for n, t in start.items() if n.endswith("weight")) > 100
    kept = run.network.state_dict()
    assert not any(kept[n][t == 0].any() for n, t in start.items() if n.endswith("weight"))


def test_what_was_asked_of_the_fine_tuning(dlrun, parent):
    words = ["optimizer.lr=1e-4", "data.batch_size=50", "finetune_epochs=1", "seed=3", "trainer.max_steps=2"]
    config = yaml.safe_load((compressed(dlrun, "method=prune_structured", *words) / "config.yaml").read_text())
    assert (config["optimizer"]["lr"], config["data"]["batch_size"], config["seed"]) == (1e-4, 50, 3)
    assert (config["trainer"]["max_epochs"], config["trainer"]["max_steps"]) == (1, 2)
    assert config["compression"]["amount"] == 0.3


def test_compressed_again(dlrun, parent):
    """A third of a half is gone by structure, then half of the weights, and those zeros outlive the next pruning."""
    once = compressed(dlrun, "method=prune_structured", "amount=0.5", "finetune_epochs=1")
    twice = compressed(dlrun, "method=prune_structured", "amount=0.25", "finetune_epochs=1", run=str(once))
    assert twice.parent.parent == once
    model = load_run(twice, device="cpu").network
    assert [m.out_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)] == [3, 6]
    sparse = compressed(dlrun, "method=prune_unstructured", "amount=0.5", "finetune_epochs=1", run=str(twice))
    assert summary(sparse)["compression"]["sparsity"] == pytest.approx(0.5, abs=3e-3)
    more = compressed(dlrun, "method=prune_unstructured", "amount=0.5", "finetune_epochs=1", run=str(sparse))
    assert summary(more)["compression"]["sparsity"] == pytest.approx(0.75, abs=3e-3)
    last = compressed(dlrun, "method=prune_structured", "amount=0.34", "finetune_epochs=1", run=str(more))
    run = load_run(last, device="cpu")
    assert [m.out_channels for m in run.network.modules() if isinstance(m, torch.nn.Conv2d)] == [2, 4]
    start = torch.load(last / "checkpoints/initial.pt", weights_only=True)
    kept = run.network.state_dict()
    assert sum(int((t == 0).sum()) for n, t in start.items() if n.endswith("weight")) > 100
    assert not any(kept[n][t == 0].any() for n, t in start.items() if n.endswith("weight"))


@pytest.mark.parametrize("method", ["prune_structured", "prune_unstructured"])
def test_stopped_and_resumed_it_is_the_same(dlrun, parent, monkeypatch, method):
    """In the middle of the second epoch of fine-tuning, to the bit."""
    words = [f"method={method}", "amount=0.5", "trainer.ema_decay=0.8"]
    whole = compressed(dlrun, *words)
    update = dlrun_trainer.Trainer._update

    def stopped(trainer, *args):
        update(trainer, *args)
        trainer.stop_requested |= trainer.progress.step + 1 == 6 and not resumed

    resumed = False
    monkeypatch.setattr(dlrun_trainer.Trainer, "_update", stopped)
    monkeypatch.setattr("dlrun.compressing.new_run_id", lambda: "stopped0")
    part = compressed(dlrun, *words, code=1)
    assert summary(part)["steps"] == 6
    assert summary(part)["parent"]["run_id"] == summary(parent)["run_id"]
    resumed = True
    assert dlrun("resume", f"run={part}").code == 0
    found = [line for line in differences(whole, part) if "previous.pt" not in line]
    assert [line for line in found if not line.startswith(("last.pt.run_id", "best.pt.run_id"))] == []


@pytest.mark.parametrize("name", ["lstm", "transformer", "mlp", "rnn", "cnn"])
def test_on_texts(dlrun, name):
    small = {
        "lstm": ["model.embedding_dim=12", "model.hidden_size=16", "model.num_layers=2"],
        "rnn": ["model.embedding_dim=12", "model.hidden_size=16"],
        "transformer": ["model.d_model=16", "model.d_ff=24"],
        "mlp": ["model.hidden_sizes=[16]"],
        "cnn": ["model.channels=[8,8]", "model.hidden_size=16"],
    }[name]
    words = [f"model={name}", *small, "data=pydocs", "data.limit=100", "trainer.max_epochs=1", *QUIET]
    assert dlrun(*words, "hydra.run.dir=parent").code == 0
    child = compressed(dlrun, "method=prune_structured", "amount=0.5", "finetune_epochs=1")
    told = summary(child)["compression"]
    assert told["parameters"] < 0.97 * told["parameters_before"]  # of a transformer the embedding stays


REFUSED = [
    (["method=prune"], "method: unknown method 'prune'; did you mean 'prune_"),
    (["method=prune_structured", "amount=1"], "amount: expected a number > 0 and < 1 or null, got 1"),
    (["method=prune_structured", "amount=0"], "amount: expected a number > 0 and < 1 or null, got 0"),
    (["method=prune_structured", "amount=lots"], "amount: expected a number > 0 and < 1 or null, got 'lots'"),
    (["method=prune_structured", "amount=0.001"], "amount=0.001: removes nothing, the widest layer has 24 units"),
    (["method=prune_unstructured", "amount=1e-6"], "amount=1e-06: removes none of"),
    (["method=prune_structured", "finetune_epochs=-1"], "finetune_epochs: expected a whole number >= 0 or null"),
    (["method=prune_structured", "trainer.max_epochs=5"], "trainer.max_epochs: compress says that by finetune_epochs"),
    (["method=prune_structured", "model.hidden_size=5"], "model.hidden_size: unknown option of compress"),
    (["method=prune_structured", "optimizer.lr=abc"], "optimizer.lr: expected a number > 0, got 'abc'"),
    (["method=prune_structured", "optimizer.lrr=1"], "optimizer.lrr: unknown option; did you mean 'lr'?"),
    (["method=prune_structured", "trainer.monitor=val/f1"], "trainer.monitor: unknown metric 'val/f1'"),
    (["method=prune_structured", "checkpoint=first"], "checkpoint: expected one of 'best', 'last', got 'first'"),
    ([], "method: is missing; see dlrun compress --help"),
]


def test_refusals_leave_nothing(dlrun, parent):
    before = sorted(parent.rglob("*"))
    for words, said in REFUSED:
        result = dlrun("compress", "run=parent", *words)
        assert (result.code, said in result.err, result.err.count("\n")) == (2, True, 1), (words, result.err)
        assert sorted(parent.rglob("*")) == before, words


def test_runs_that_cant_be_compressed(dlrun, parent):
    words = ["model=perceptron", "trainer.max_epochs=1", "data.limit=100", *QUIET]
    assert dlrun(*words, "hydra.run.dir=perceptron").code == 0
    result = dlrun("compress", "run=perceptron", "method=prune_structured")
    assert (result.code, result.err) == (
        2,
        "dlrun: method=prune_structured: this model has nothing to remove between its inputs and its outputs\n",
    )
    assert not (dlrun.folder / "perceptron/compress").exists()
    shutil.copytree(parent, dlrun.folder / "damaged")
    best = dlrun.folder / "damaged/checkpoints/best.pt"
    best.write_bytes(best.read_bytes()[:2000])
    result = dlrun("compress", "run=damaged", "method=prune_structured")
    assert (result.code, "best.pt is damaged" in result.err) == (2, True)
    assert dlrun("compress", "run=damaged", "method=prune_structured", "checkpoint=last", "bench=false").code == 0
    assert dlrun("compress", "run=nowhere", "method=prune_structured").code == 2


def test_an_int8_run_is_at_its_end(dlrun, parent):
    config = yaml.safe_load((parent / "config.yaml").read_text())
    config["compression"] = {"method": "quantize_static", "parent": "abcdefgh"}
    (parent / "config.yaml").write_text(yaml.safe_dump(config))
    result = dlrun("compress", "run=parent", "method=prune_structured")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert not (parent / "compress").exists()


def test_data_that_is_gone(dlrun):
    (dlrun.folder / "texts.csv").write_text("text,label\n" + "good film,1\nbad film,0\n" * 40)
    words = ["model=mlp", "data=text_csv", "data.file=texts.csv", "trainer.max_epochs=1", *QUIET]
    assert dlrun(*words, "hydra.run.dir=parent").code == 0
    (dlrun.folder / "texts.csv").unlink()
    result = dlrun("compress", "run=parent", "method=prune_structured")
    assert (result.code, "texts.csv" in result.err, result.err.count("\n")) == (2, True, 1)
    assert not (dlrun.folder / "parent/compress").exists()


def test_help_names_every_option_and_method(dlrun):
    said = dlrun("compress", "--help").out
    assert all(f"{name}=" in said for name in Options.__dataclass_fields__)
    assert all(name in said for name in METHODS)
