"""`dlrun compress` with int8: what comes of a run, what is refused, and what is left of one that was interrupted."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import wandb
from command_line import CommandLine
from onnx.numpy_helper import to_array

from dlrun import load_run
from dlrun.errors import UserError
from dlrun.exporting.runtime import Runner
from dlrun.tracking.wandb.parts import numbers, parts
from dlrun.train import train
from dlrun.trainer import Trainer

QUIET = ["tracking=none", "trainer.enable_progress_bar=false"]
RUNS = {
    "cnn": ["data=digits", "model=cnn", "model.channels=[16,32]", "model.hidden_size=64", "trainer.max_epochs=6"],
    "transformer": ["data=digits", "model=transformer", "model.d_model=32", "trainer.max_epochs=12"],
    "lstm": ["data=digits", "model=lstm", "model.hidden_size=32", "model.embedding_dim=32", "trainer.max_epochs=6"],
    "mlp": ["data=digits", "model=mlp", "model.hidden_sizes=[64]", "trainer.max_epochs=6"],
}
METHODS = ("quantize_static", "quantize_dynamic", "qat")

Trained = Callable[[str], Path]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"": tmp_path_factory.mktemp("trained")}


@pytest.fixture
def trained(dlrun: CommandLine, wholes: dict[str, Path]) -> Trained:
    """A copy of a trained run, trained once."""

    def made(name: str) -> Path:
        torch.set_num_threads(1)
        if name not in wholes:
            wholes[name] = wholes[""] / name
            result = dlrun(*RUNS[name], *QUIET, "optimizer.lr=3e-3", f"hydra.run.dir={wholes[name]}")
            assert result.code == 0, result.err
        return Path(shutil.copytree(wholes[name], dlrun.folder / name))

    return made


def compressed(dlrun: CommandLine, parent: Path, method: str, *words: str) -> Path:
    before = set(parent.glob("compress/*"))
    result = dlrun("compress", f"run={parent}", f"method={method}", "bench=false", *QUIET, *words)
    assert result.code == 0, result.err + result.out
    (path,) = set(parent.glob("compress/*")) - before
    return path


def summary(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "summary.json").read_text()))


def weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors in a run's int8 file."""
    graph = onnx.load(path / "checkpoints/int8.onnx").graph
    return {tensor.name: to_array(tensor) for tensor in graph.initializer}


@pytest.mark.parametrize(
    "name",
    ["cnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mlp", "lstm", "transformer"))],
)
def test_int8_answers_as_the_floats_did(dlrun: CommandLine, trained: Trained, name: str) -> None:
    parent = trained(name)
    before = summary(parent)["test"]["test/acc"]
    assert before > 0.6
    for method in METHODS:
        path = compressed(dlrun, parent, method)
        run, told = load_run(path), summary(path)
        assert isinstance(run.model, Runner)
        assert (run.model.metadata["run_id"], run.model.metadata["quantization"]) == (run.run_id, method)
        # What the folder says of itself is what the file gives.
        batches = list(run.batches("test").epoch(0))
        guesses = torch.cat([run.model(inputs) for inputs, _ in batches]).argmax(dim=1)
        right = (guesses == torch.cat([targets for _, targets in batches])).double().mean().item()
        assert told["test"]["test/acc"] == pytest.approx(right, abs=1e-6)
        assert abs(right - before) <= (0.02 if method != "qat" else 0.05) or right > before
        floats = torch.cat([run.network(inputs) for inputs, _ in batches]).argmax(dim=1)
        facts = told["compression"]
        assert facts["agreement"] == pytest.approx((floats == guesses).double().mean().item(), abs=1e-6)
        assert facts["agreement"] > 0.98
        assert told["parent"] == {"run_id": summary(parent)["run_id"], "path": "../.."}
        assert facts["bytes"] == (path / "checkpoints/int8.onnx").stat().st_size < facts["bytes_before"]
        assert facts["int8_nodes"]
        assert facts["test_before"]["test/acc"] == pytest.approx(before)
        expected = {"lstm": {"quantize_static": {"LSTM"}, "qat": {"LSTM"}}, "cnn": {"quantize_dynamic": {"Conv"}}}
        assert set(facts["float_nodes"]) == expected.get(name, {}).get(method, set())


def test_wandb_is_told_what_the_int8_file_does(dlrun: CommandLine) -> None:
    """And not what the floats did that were trained."""
    offline = ["tracking=wandb", "tracking.wandb.mode=offline", QUIET[1]]
    assert dlrun(*RUNS["mlp"], *offline, "trainer.max_epochs=1", "hydra.run.dir=run").code == 0
    words = ["method=qat", "finetune_epochs=1", "bench=false"]
    result = dlrun("compress", "run=run", *words)
    assert result.code == 0, result.err
    (path,) = Path("run").glob("compress/*")
    wandb.teardown()  # all of it is in the files
    found, told = parts(path.absolute(), path.name[-8:]), summary(path)
    rows = [numbers(row) for part in found for row in part.rows().values()]
    assert rows[-1].items() >= told["test"].items()
    assert rows[-1]["compression/agreement"] == told["compression"]["agreement"]
    assert not any("compression/agreement" in row for row in rows[:-1])


def test_options_reach_the_quantiser(dlrun: CommandLine, trained: Trained) -> None:
    parent = trained("mlp")
    finer = compressed(dlrun, parent, "quantize_static", "reduce_range=false", "calibration=percentile")
    coarser = compressed(dlrun, parent, "quantize_static", "calibration_samples=40")
    largest = [
        max(int(np.abs(t.astype(int)).max()) for t in weights(p).values() if t.dtype == np.int8 and t.ndim == 2)
        for p in (finer, coarser)
    ]
    assert largest == [127, 64]
    facts = summary(finer)["compression"]
    assert (facts["calibration"], facts["calibration_samples"], facts["reduce_range"]) == ("percentile", 512, False)
    assert summary(coarser)["compression"]["calibration_samples"] == 40


REFUSED = {
    ("quantize_static", "amount=0.3"): "amount: 0.3 does nothing with method=quantize_static",
    ("quantize_dynamic", "finetune_epochs=2"): "finetune_epochs: method=quantize_dynamic trains nothing",
    ("quantize_dynamic", "calibration=entropy"): "calibration: entropy does nothing with method=quantize_dynamic",
    ("qat", "reduce_range=false"): "reduce_range: False does nothing with method=qat",
    ("qat", "precision.name=bf16"): "precision.name: method=qat needs fp32 or tf32",
    ("quantize_static", "calibration=minmix"): "calibration: expected one of",
    ("quantize_static", "calibration_samples=0"): "calibration_samples: expected",
    ("prune_unstructured", "calibration=minmax"): "calibration: minmax does nothing with method=prune_unstructured",
    ("quantise", "reduce_range=true"): "unknown method 'quantise'",
}


def test_what_cannot_be_honoured_is_refused(dlrun: CommandLine, trained: Trained) -> None:
    parent = trained("mlp")
    for (method, word), said in REFUSED.items():
        result = dlrun("compress", f"run={parent}", f"method={method}", word, *QUIET)
        assert (result.code, said in result.err) == (2, True), (method, word, result.err)
    assert not (parent / "compress").exists()


def test_int8_is_the_last_step(dlrun: CommandLine, trained: Trained) -> None:
    path = compressed(dlrun, trained("mlp"), "quantize_static")
    for method in ("quantize_dynamic", "prune_structured"):
        result = dlrun("compress", f"run={path}", f"method={method}", *QUIET)
        assert (result.code, "quantised (quantize_static), and that is the last step" in result.err) == (2, True)
    result = dlrun("resume", f"run={path}", "trainer.max_epochs=3")
    assert (result.code, "which trains nothing; resume its parent" in result.err) == (2, True)


def test_a_pruned_run_can_be_quantised(dlrun: CommandLine, trained: Trained) -> None:
    smaller = compressed(dlrun, trained("cnn"), "prune_structured", "amount=0.5", "finetune_epochs=1")
    sparse = compressed(dlrun, smaller, "prune_unstructured", "amount=0.5", "finetune_epochs=1")
    for method in METHODS:
        path = compressed(dlrun, sparse, method)
        facts = summary(path)["compression"]
        assert facts["parameters"] == summary(smaller)["compression"]["parameters"]
        assert facts["agreement"] > 0.98
        assert summary(path)["test"]["test/acc"] > summary(sparse)["test"]["test/acc"] - 0.02
        if method != "quantize_dynamic":
            integers = [t for t in weights(path).values() if t.dtype == np.int8 and t.ndim > 1]
            zeros = sum((t == 0).sum() for t in integers) / sum(t.size for t in integers)
            assert zeros > 0.45  # what was zero is an integer zero


def graph(path: Path) -> bytes:
    """An int8 file without the run's id."""
    model = onnx.load(path / "checkpoints/int8.onnx")
    del model.metadata_props[:]
    return bytes(model.SerializeToString())


def test_a_training_that_was_interrupted_ends_in_the_same_int8_file(
    dlrun: CommandLine, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = trained("cnn")
    whole = compressed(dlrun, parent, "qat", "finetune_epochs=2")
    update, stops = Trainer._update, [27, 9]

    def stopped(trainer: Trainer, *args: Any) -> None:
        update(trainer, *args)
        if stops and trainer.progress.step + 1 == stops[-1]:
            stops.pop()
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_update", stopped)
    assert dlrun("compress", f"run={parent}", "method=qat", "finetune_epochs=2", *QUIET).code == 143
    (path,) = set(parent.glob("compress/*")) - {whole}
    assert dlrun("resume", f"run={path}").code == 143
    with pytest.raises(UserError, match=f"dlrun resume run={path}"):
        load_run(path)
    assert not (path / "checkpoints/int8.onnx").exists()
    result = dlrun("resume", f"run={path}")
    assert result.code == 0, result.err
    states = [torch.load(p / "checkpoints/last.pt", weights_only=True)["model"] for p in (whole, path)]
    assert states[0].keys() == states[1].keys()
    assert any(key.endswith("input_range") for key in states[0])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert graph(whole) == graph(path)
    assert summary(whole)["test"] == summary(path)["test"]


def test_resume_makes_the_file_that_is_missing(dlrun: CommandLine, trained: Trained) -> None:
    path = compressed(dlrun, trained("mlp"), "qat", "finetune_epochs=1")
    before = graph(path)
    (path / "checkpoints/int8.onnx").unlink()
    with pytest.raises(UserError, match=f"dlrun resume run={path}"):
        load_run(path)
    assert dlrun("resume", f"run={path}").code == 0
    assert graph(path) == before


def test_a_resume_that_is_refused_leaves_the_file_where_it_is(dlrun: CommandLine, trained: Trained) -> None:
    path = compressed(dlrun, trained("mlp"), "qat", "finetune_epochs=1")
    before = graph(path)
    assert dlrun("resume", f"run={path}", "trainer.max_epochs=nine").code == 2
    assert graph(path) == before


def test_the_file_is_of_the_best_weights_and_no_others(dlrun: CommandLine, trained: Trained) -> None:
    path = compressed(dlrun, trained("mlp"), "qat", "finetune_epochs=1")
    with pytest.raises(UserError, match="checkpoint=last: the int8 file was made of the best weights"):
        load_run(path, "last")


def test_a_quantisation_that_fails_leaves_nothing(
    dlrun: CommandLine, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = trained("mlp")
    monkeypatch.setattr("dlrun.quantizing.load_run", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("sys.argv", ["dlrun"])
    with pytest.raises(ZeroDivisionError):
        dlrun("compress", f"run={parent}", "method=quantize_dynamic", *QUIET)
    assert list(parent.glob("compress/*")) == []


def test_ctrl_c_between_the_test_of_the_floats_and_that_of_the_file_leaves_nothing(
    dlrun: CommandLine, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any) -> None:
        train(*given)
        raise KeyboardInterrupt

    parent = trained("mlp")
    monkeypatch.setattr("dlrun.compressing.train", interrupted)
    assert dlrun("compress", f"run={parent}", "method=quantize_static", *QUIET).code == 130
    assert not (parent / "compress").exists()


def test_the_log_says_what_the_int8_file_reaches(dlrun: CommandLine, trained: Trained) -> None:
    path = compressed(dlrun, trained("mlp"), "quantize_dynamic")
    told = summary(path)
    (line,) = [line for line in (path / "dlrun.log").read_text().splitlines() if "int8   test/" in line]
    assert f"test/loss {told['test']['test/loss']:.4f}  test/acc {told['test']['test/acc']:.4f}" in line
    assert f"for {100 * told['compression']['agreement']:.2f} % of" in line


@pytest.mark.parametrize("method", [*METHODS, "prune_structured"])
def test_a_full_disk_is_one_line(dlrun: CommandLine, trained: Trained, method: str) -> None:
    """The files of weights, of 40 KB and more, don't fit on it; what is smaller does."""
    parent, before = trained("cnn"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, before[1]))
    try:
        result = dlrun("compress", f"run={parent}", f"method={method}", *QUIET)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (result.code, result.err.count("\n"), "can't write to" in result.err) == (2, 1, True), result.err
    assert not (parent / "compress").exists()
