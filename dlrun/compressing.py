"""`dlrun compress`: from a trained run to a smaller one, a run folder of its own below its parent's."""

from __future__ import annotations

import copy
import io
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from dlrun import checkpoint, quantizing
from dlrun.atomic import atomic_write
from dlrun.build import build_model
from dlrun.changes import changed
from dlrun.compression import structured, unstructured
from dlrun.compression.structure import shapes_of
from dlrun.config import may_change, parse
from dlrun.errors import RunFailed, UserError
from dlrun.loading import LoadedRun
from dlrun.logs import configure
from dlrun.models.zoo import weights_from_checkpoint
from dlrun.quantizing import Int8, Quantization
from dlrun.runfolder import RunFolder, new_run_id
from dlrun.train import Job, train
from dlrun.weights import judged

GROUPS = ("optimizer", "scheduler", "trainer", "task", "augment", "precision")  # of the config, free for fine-tuning
OTHERS = ("data.batch_size", "data.eval_batch_size", "seed")
OWN = {
    "trainer.max_epochs": "finetune_epochs",
    "trainer.fast_dev_run": "finetune_epochs=1 trainer.limit_train_batches=3",
}
FOREVER = {"max_steps": None, "max_time": None, "patience": None, "min_delta": 0.0}  # of the trainer, while fine-tuning


@dataclass
class Shrunk:
    """What a method makes of a net: one that the config of the new run builds, once it says `compression`."""

    network: nn.Module
    compression: dict[str, Any] = field(default_factory=dict)  # beside method, parent and amount: shapes, sparse
    facts: dict[str, Any] = field(default_factory=dict)  # for summary.json
    int8: Int8 | None = None  # what will answer for the new run


@dataclass(frozen=True)
class Method:
    """A way to make a run smaller.

    `shrink` is asked before anything is written, and may refuse by UserError. A method that `quantizes` leaves an int8
    file when training and test are over, which is then tested itself.
    """

    shrink: Callable[[LoadedRun, float, Quantization], Shrunk]
    takes_amount: bool = True
    trains: bool = True
    quantizes: bool = False


def _prune_structured(run: LoadedRun, amount: float, __: Quantization) -> Shrunk:
    network, _ = structured.prune(run.network, run.spec, amount)
    shapes = shapes_of(_as_registered(run), network)
    return Shrunk(network, _inherited(run) | {"shapes": shapes})


def _prune_unstructured(run: LoadedRun, amount: float, _: Quantization) -> Shrunk:
    network = copy.deepcopy(run.network).cpu()
    unstructured.prune(network, amount, again=_is_sparse(run))
    layers = unstructured.zeros_of(network).layers
    return Shrunk(network, _inherited(run) | {"sparse": True}, {"sparsity_by_layer": layers})


def _quantize(method: str) -> Callable[[LoadedRun, float, Quantization], Shrunk]:
    def shrink(run: LoadedRun, _: float, how: Quantization) -> Shrunk:
        return Shrunk(run.network, _inherited(run), int8=quantizing.convert(run, method, how))

    return shrink


def _train_for_int8(run: LoadedRun, _: float, __: Quantization) -> Shrunk:
    return Shrunk(quantizing.fake_quantized(run), _inherited(run))


METHODS: dict[str, Method] = {
    "prune_structured": Method(_prune_structured),
    "prune_unstructured": Method(_prune_unstructured),
    "quantize_static": Method(_quantize("quantize_static"), takes_amount=False, trains=False, quantizes=True),
    "quantize_dynamic": Method(_quantize("quantize_dynamic"), takes_amount=False, trains=False, quantizes=True),
    "qat": Method(_train_for_int8, takes_amount=False, quantizes=True),
}


@dataclass(frozen=True)
class Figures:
    """What a run comes to; metrics of the test split."""

    parameters: int
    bytes: int  # of the weights in a file
    sparsity: float  # share of zeros among the weights of its layers
    test: dict[str, float]


@dataclass(frozen=True)
class Compressed:
    """The new run, and both in numbers."""

    folder: RunFolder
    before: Figures
    after: Figures


def tunable(key: str) -> bool:
    """Whether compress takes `key` of the config for its fine-tuning. Raises UserError for what it says itself."""
    if key in OWN:
        raise UserError(f"{key}: compress says that by {OWN[key]}")
    return may_change(key) or key.partition(".")[0] in GROUPS or key in OTHERS


def compress(
    run: LoadedRun,
    method: str,
    amount: float,
    epochs: int,
    words: Sequence[str],
    quantization: Quantization | None = None,
) -> Compressed:
    """Make `run` smaller by `method`, fine-tune it for `epochs`, test it, and leave it as a run of its own.

    `words` override the fine-tuning's config. Raises UserError before anything is written, RunFailed as `train`.
    """
    how, done = METHODS[method], run.config.compression
    if done is not None and not done.method.startswith("prune"):
        raise UserError(
            f"run: {run.folder.path} is quantised ({done.method}), and that is the last step; prune its parent "
            f"(run {done.parent}) first, then quantise what comes of it"
        )
    with closing(run.batches("test")) as batches:  # its data is there, or this is where that is said
        before = run.evaluator().evaluate(batches, "test")
    shrunk = how.shrink(run, amount, quantization or Quantization())
    run_id = new_run_id()
    folder = RunFolder(run.folder.path / "compress" / f"{method}-{run_id}")
    compression = {"method": method, "parent": run.run_id, "amount": amount if how.takes_amount else None}
    config = finetuning(run, epochs, words) | {
        "compression": compression | shrunk.compression,
        "init_from": None,  # but `folder.initial`
    }
    if method == "qat":
        config = quantizing.in_full_precision(config, words)
    parse(config)
    figures = Figures(**_size(run.network), test=before)
    facts = {
        "parent": {"run_id": run.run_id, "path": os.path.join("..", "..")},
        "compression": {
            **{key: value for key, value in compression.items() if key != "parent"},
            **{f"{key}_before": value for key, value in asdict(figures).items()},
            **_size(shrunk.network),
            **shrunk.facts,
        },
    }
    try:
        _train(folder, run_id, config, facts, shrunk.network.state_dict(), epochs == 0)
        quantized = _quantized(folder, run, shrunk.int8, words) if how.quantizes else {}
    except BaseException as error:
        rest = f"; dlrun resume run={folder.path} does the rest"
        if shrunk.int8 is not None:  # nothing was trained, and there is nothing to resume
            rest = ""
            _remove(folder)
        if isinstance(error, OSError):
            raise UserError(f"run: can't write to {folder.path} ({error.strerror}){rest}") from error
        raise
    size = _size(_best(folder, config, run))
    if how.quantizes:
        figures, size = replace(figures, bytes=quantized["bytes_before"]), size | {"bytes": quantized["bytes"]}
    return Compressed(folder, figures, Figures(**size, test=folder.read_summary()["test"]))


def _quantized(folder: RunFolder, run: LoadedRun, file: Int8 | None, words: Sequence[str]) -> dict[str, Any]:
    """Give the new run its int8 file: the one that was made of `run`, or that of what was trained."""
    plugins = [word for word in words if word.startswith("plugins=")]
    if file is None:  # if that is interrupted, resume does it
        return quantizing.finish(folder.path, plugins)
    return quantizing.attach(folder, file, run, plugins)


def _remove(folder: RunFolder) -> None:
    logging.shutdown()
    logging.getLogger().handlers.clear()  # the log goes with the folder
    shutil.rmtree(folder.path, ignore_errors=True)
    with suppress(OSError):  # there are others
        folder.path.parent.rmdir()


def finetuning(run: LoadedRun, epochs: int, words: Sequence[str]) -> dict[str, Any]:
    """The run's own config for a few epochs more, and `words` in it.

    Its schedule over these epochs, at its learning rate, without a warm-up; what it held fixed at its end stays so. On
    the recipes digits_cnn, digits_mlp, pydocs_lstm and pydocs_transformer three epochs at 1, 0.3 and 0.1 of the rate
    left 0.6, 0.5 and 3.0 points less of accuracy, on average over 0.3 and 0.5 of the widths and 0.8 of the weights;
    where much was cut, 1 was ahead.
    """
    config = run.folder.read_config()
    trainer, trained = config["trainer"], run.progress.get("epoch") or 0
    trainer |= FOREVER | {"max_epochs": max(epochs, 1)}
    if trainer.get("freeze"):
        trainer["freeze"] = {name: 0 for name, until in trainer["freeze"].items() if until <= trained} or None
    config["scheduler"] |= {"warmup_steps": 0, "warmup_epochs": 0, "total_steps": None}
    return changed(config, words, "compress", tunable)


def _train(
    folder: RunFolder,
    run_id: str,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    untrained: bool,
) -> None:
    """Make the folder and train in it; what never began leaves nothing."""
    top = folder.path.parent
    try:
        top.mkdir(exist_ok=True)
        folder.path.mkdir()
    except OSError as error:
        raise UserError(f"run: can't write to {top} ({error.strerror})") from error
    try:
        folder.claim(run_id, ["dlrun", *sys.argv[1:]])
        folder.update_summary(**facts)
        content = io.BytesIO()  # on a full disk torch.save raises what is no OSError
        torch.save(dict(state), content)
        with atomic_write(folder.initial) as file:
            file.write(content.getbuffer())
        folder.write_config(config)
        configure(folder)
        names = {group: v["name"] for group, v in config.items() if isinstance(v, dict) and "name" in v}
        train(config, Job(folder.path, run_id, names, untrained=untrained))
    except BaseException as error:
        written = folder.read_summary() if folder.summary.exists() else {}
        begun = "parameters" in written or isinstance(error, RunFailed)
        if isinstance(error, UserError) or not begun:
            _remove(folder)
        if isinstance(error, OSError):
            raise UserError(f"run: can't write to {folder.path} ({error.strerror})") from error
        raise
    finally:
        folder.release()


def _best(folder: RunFolder, config: Mapping[str, Any], run: LoadedRun) -> nn.Module:
    """The new run's net, with the weights that were tested."""
    network = build_model(parse(config), run.spec)
    network.load_state_dict(judged(checkpoint.load(folder.best))[0])
    return network


def _size(network: nn.Module) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": file.tell(),
        "sparsity": unstructured.zeros_of(network).weights,
    }


def _as_registered(run: LoadedRun) -> nn.Module:
    """The net as the registry builds it: what shapes are told against."""
    with torch.random.fork_rng(devices=[]), weights_from_checkpoint():
        return build_model(replace(run.config, compression=None), run.spec)


def _inherited(run: LoadedRun) -> dict[str, Any]:
    return {"shapes": _shapes(run), "sparse": _is_sparse(run)}


def _shapes(run: LoadedRun) -> dict[str, list[int]]:
    return {} if run.config.compression is None else run.config.compression.shapes


def _is_sparse(run: LoadedRun) -> bool:
    return run.config.compression is not None and run.config.compression.sparse
