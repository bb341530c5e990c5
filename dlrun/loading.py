"""A run folder → the trained model, with all that belongs to it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlrun import checkpoint as checkpoints
from dlrun.build import build_model, channels_last
from dlrun.changes import changed, check_plugins
from dlrun.config import Config, may_change, parse
from dlrun.data.foreign import Reader, raw_batch, reader
from dlrun.data.loader import Batches
from dlrun.data.prepare import preparation
from dlrun.data.source import Split
from dlrun.errors import UserError
from dlrun.evaluator import Evaluator
from dlrun.inputs import build_batches, build_source, read_split
from dlrun.machine import choose_device
from dlrun.models.zoo import weights_from_checkpoint
from dlrun.plugins import load_plugins
from dlrun.precision import Precision
from dlrun.predictions import Prediction, best
from dlrun.registry import Count, check_value, precisions, tasks
from dlrun.runfolder import RunFolder
from dlrun.runs import find, refuse_sweep
from dlrun.spec import DataSpec
from dlrun.tta import checked
from dlrun.weights import judged

log = logging.getLogger("dlrun")

Checkpoint = Literal["best", "last"]
SplitName = Literal["train", "val", "test"]


@dataclass
class LoadedRun:
    """A trained run, ready to be asked.

    `model` takes what `prepare` makes of a raw batch, and gives logits (B, K); it is in eval mode, and has the averaged
    weights if the run has some. `network` is the PyTorch net behind it: the same object, but for a run that was
    quantised to int8, whose `model` is run by ONNX Runtime while `network` has the weights in floating point.
    """

    folder: RunFolder
    run_id: str
    config: Config
    plain: dict[str, Any]  # config.yaml, with what was overridden
    spec: DataSpec
    model: nn.Module
    network: nn.Module
    device: torch.device
    precision: Precision
    prepare: Callable[[Tensor], Tensor]
    checkpoint: Path
    state: Mapping[str, Any]  # of the checkpoint, without its tensors: progress, data, …
    rounded: tuple[str, ...] = ()  # parameters of `network` that the training had in bfloat16; here they are fp32

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.spec.class_names

    @property
    def progress(self) -> Mapping[str, Any]:
        """How far the training was at the checkpoint: epoch, step, …"""
        progress: Mapping[str, Any] = self.state["progress"]
        return progress

    def split(self, name: SplitName, whole: bool = False) -> Split:
        """A split of the run's data: its classes, vocabulary and statistics are those of the training.

        With `whole`, data that has no test split of its own is all test. Raises UserError if it can't be read, or has
        what the run doesn't know.
        """
        source = build_source(self.config, self.spec, whole)
        self.spec.check_same(source.spec, self.config.dataset.name)
        return read_split(self.config, source, name)

    def batches(self, name: SplitName, split: Split | None = None) -> Batches:
        """A split, or the one that is given in its place, in its own order and not augmented. Raises UserError."""
        split = self.split(name) if split is None else split
        return build_batches(self.config, split, name, self.device, self.prepare)

    @cached_property
    def reader(self) -> Reader:
        """Who reads samples that belong to no data set. Raises UserError where none of them can be read."""
        return reader(self.spec)

    def preprocess(self, samples: Any) -> Tensor:
        """What `model` takes, of one sample or several: (B, C, H, W), (B, L) or (B, F), as a split would give them.

        Of pictures, paths, PIL images, or uint8 arrays (H, W) or (H, W, C), of any size; of texts, strings; of a table,
        rows of numbers as they were measured. A path is decoded as training decodes, at a fraction where that is
        enough; a PIL image stands as it is. Raises UserError for a sample that can't be read.
        """
        return self.prepare(raw_batch(self.reader, self.reader.listed(samples)))

    def predict(self, samples: Any, top_k: int = 5) -> list[Prediction]:
        """The `top_k` most probable classes, all where there are fewer, of each sample; of `preprocess`'s kinds.

        As many at a time as in evaluation, judged as there: by the run's precision and `trainer.tta`.
        """
        check_value(top_k, Count, "top_k")
        several = self.reader.listed(samples)
        parts = [several[i : i + self.batch_size] for i in range(0, len(several), self.batch_size)]
        judge, found = self.evaluator(), []
        for part in parts:
            probabilities = judge.probabilities(self.preprocess(part))
            found += best(probabilities, self.class_names, top_k)
        return found

    @property
    def batch_size(self) -> int:
        """Samples that are judged at a time."""
        return self.config.data.eval_batch_size or 4 * self.config.data.batch_size

    def evaluator(self) -> Evaluator:
        """Judges `model` as the training did: its precision, and its views of each picture."""
        halves = self.config.trainer.on_oom == "halve"
        task = tasks.build("classification", {}, self.spec, torch.ones(self.spec.num_outputs))
        tta = checked(self.config.trainer.tta, self.spec)
        model = self.model
        if self.rounded and self.precision.name == "bf16_weights" and model is self.network:
            model = copy.deepcopy(model)
            for name in self.rounded:
                parameter = model.get_parameter(name)
                parameter.data = parameter.data.bfloat16()
        return Evaluator(model, task.to(self.device), self.precision, tta=tta, halves=halves)


def load_run(
    run: str | Path, checkpoint: Checkpoint = "best", overrides: Sequence[str] = (), device: str = "auto"
) -> LoadedRun:
    """The run in the folder `run` ("last" is the one that was begun last), as its checkpoint has it.

    `overrides` are words such as "data.root=…", and win over `device`. Nothing that lies in the folder is executed;
    plugins that it names are imported only if an override says so too. Raises UserError for whatever can't be loaded.
    """
    loaded = load_floats(run, checkpoint, overrides, device)
    if is_int8(loaded.config):
        if checkpoint != "best":
            raise UserError(
                f"checkpoint={checkpoint}: the int8 file was made of the best weights; leave checkpoint out"
            )
        loaded.model = _int8(loaded)
    return loaded


def load_floats(
    run: str | Path, checkpoint: Checkpoint = "best", overrides: Sequence[str] = (), device: str = "auto"
) -> LoadedRun:
    """As `load_run`; of a run that was quantised, too, `model` is the net with weights in floating point."""
    path = find(str(run))
    refuse_sweep(path, "take")
    folder = RunFolder(path)
    summary, before = folder.read_summary(), folder.read_config()
    words = [f"device={device}", *overrides]  # not that of the training, which may be another machine's
    plain = changed(before, words, "run", overridable, "is what it is for a run that was trained with it")
    check_plugins(before, overrides)
    config = parse(plain)
    load_plugins(config.plugins)
    # int8 is for the CPU, and so is what goes with it, unless somebody wants the floats elsewhere.
    target = choose_device("cpu" if config.device == "auto" and is_int8(config) else config.device)
    file = _checkpoint_file(folder, checkpoint)
    state = checkpoints.load(file)
    spec = _spec(state["spec"], file)
    with torch.random.fork_rng(devices=[]), weights_from_checkpoint():  # what is drawn here is overwritten
        network = build_model(config, spec)
    try:
        network.load_state_dict(judged(state)[0])
    except (RuntimeError, KeyError, TypeError) as error:  # torch names every tensor that doesn't fit
        raise UserError(f"{file} doesn't fit the model of {folder.config}: {' '.join(str(error).split())}") from None
    network.to(target).eval()
    last = channels_last(config.trainer.channels_last, network, spec)
    if last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LoadedRun(
        folder=folder,
        run_id=str(summary["run_id"]),
        config=config,
        plain=plain,
        spec=spec,
        model=network,
        network=network,
        device=target,
        precision=_precision(config, target),
        prepare=preparation(spec, target, last),
        checkpoint=file,
        rounded=tuple(name for name, _ in network.named_parameters() if state["model"][name].dtype == torch.bfloat16),
        state={name: value for name, value in state.items() if name not in ("model", "ema", "optimizer")},
    )


def overridable(key: str) -> bool:
    """Whether a command on a trained run may have `key` of the config otherwise: where things are and how fast."""
    return may_change(key) or key == "data.eval_batch_size"


def _checkpoint_file(folder: RunFolder, name: Checkpoint) -> Path:
    files = {"best": folder.best, "last": folder.last}
    if name not in files:
        raise UserError(f"checkpoint: expected one of 'best', 'last', got {name!r}")
    if files[name].exists():
        return files[name]
    there = [other for other, file in files.items() if file.exists()]
    hint = f"checkpoint={there[0]} is there" if there else f"the run is {folder.read_summary().get('status')}"
    raise UserError(f"checkpoint={name}: no {files[name]}; {hint}")


def _spec(plain: Any, file: Path) -> DataSpec:
    try:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()
        }
        return DataSpec(**values)
    except (AttributeError, TypeError) as error:
        raise UserError(f"{file} doesn't say what its data was: {error}") from None


def is_int8(config: Config) -> bool:
    """Whether the run is one that int8 weights were made of."""
    return config.compression is not None and not config.compression.method.startswith("prune")


def _int8(run: LoadedRun) -> nn.Module:
    """What ONNX Runtime makes of the run's int8 file."""
    file, compression = run.folder.int8, run.config.compression
    if not file.exists():
        trained = compression is not None and compression.method == "qat"
        rest = f"dlrun resume run={run.folder.path} does the rest" if trained else "compress its parent again"
        raise UserError(f"{file} is missing, the quantisation was interrupted: {rest}")
    if run.device.type != "cpu":
        raise UserError(f"device: int8 runs on the CPU, got '{run.device.type}'; set device=cpu")
    from dlrun.exporting.runtime import open_artifact

    return open_artifact(file, threads=torch.get_num_threads())


def _precision(config: Config, device: torch.device) -> Precision:
    """The training's, where this device can do it: a run of a GPU can be judged without one."""
    try:
        precision: Precision = precisions.build(config.precision.name, config.precision.options, device)
    except UserError as error:
        log.warning("%s: evaluated in fp32 here", error)
        precision = precisions.build("fp32", {}, device)
    return precision
