"""From a run's float weights to its int8 file: the last step of `dlrun compress`, or of `dlrun resume` after it."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlrun.atomic import atomic_write
from dlrun.compression import int8
from dlrun.compression.calibration import samples
from dlrun.compression.fake_quantization import learned, observe, plain, prepare
from dlrun.errors import UserError
from dlrun.exporting import onnx
from dlrun.exporting.metadata import describe
from dlrun.loading import LoadedRun, load_floats, load_run
from dlrun.registry import Count
from dlrun.reporting import tell
from dlrun.runfolder import RunFolder

log = logging.getLogger("dlrun")


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How `quantize_static` finds the ranges of activations, and with how many bits weights are rounded."""

    calibration: int8.Calibration = "minmax"
    calibration_samples: Count = 512
    reduce_range: bool = True  # 7 bits instead of 8


@dataclass(frozen=True)
class Int8:
    """A file that isn't written yet, and what is known of it."""

    content: bytes
    facts: dict[str, Any]


def convert(run: LoadedRun, method: str, how: Quantization) -> Int8:
    """The int8 file of the net in `run`, which is one in floating point. Raises UserError; writes nothing."""
    network = copy.deepcopy(run.network).cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    trained = learned(network) if method == "qat" else None
    network = plain(network) if method == "qat" else network
    metadata = describe(run.spec, run_id=run.run_id, checkpoint=run.checkpoint.stem)
    with _scratch() as name:
        source, target = Path(name) / "float.onnx", Path(name) / "int8.onnx"
        onnx.write(network, run.spec, source, metadata)
        if method == "quantize_dynamic":
            made = int8.dynamic(source, target, reduce_range=how.reduce_range)
        else:
            shown = samples(run.batches("train"), how.calibration_samples)
            options = {"calibration": how.calibration, "reduce_range": how.reduce_range}
            made = int8.static(source, target, shown, learned=trained, **options)  # type: ignore[arg-type]
        log.info("%s", _told(made))
        return Int8(target.read_bytes(), _facts(made, method, how))


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder for files on the way. Raises UserError for one that is full."""
    try:
        with tempfile.TemporaryDirectory(prefix="dlrun-") as name:
            yield name
    except OSError as error:
        raise UserError(
            f"can't write to {tempfile.gettempdir()} ({error.strerror}): int8 files are made there; TMPDIR=… is another"
        ) from error


def attach(folder: RunFolder, file: Int8, floats: LoadedRun, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Make `file` what answers for the run in `folder`, test it, and note that in its summary and in its W&B run.

    `floats` is what it was made of, and agrees with it on so many samples of the test split. Returns the facts.
    """
    with atomic_write(folder.int8) as target:
        target.write(onnx.relabelled(file.content, run_id=str(folder.read_summary()["run_id"]), checkpoint="best"))
    run = load_run(folder.path, overrides=overrides, device="cpu")
    with closing(run.batches("test")) as batches:
        metrics, ours = run.evaluator().examine(batches, "test")
    with closing(floats.batches("test")) as batches:
        theirs = floats.evaluator().predict(batches)
    agreement = (ours["guesses"] == theirs["guesses"]).double().mean().item()
    facts = {**file.facts, "bytes": folder.int8.stat().st_size, "agreement": agreement}
    summary = folder.read_summary()
    folder.update_summary(test=metrics, compression={**summary.get("compression", {}), **facts})
    told = "".join(f"  {name} {value:.4f}" for name, value in metrics.items())
    log.info("int8 %s, the same class as in floating point for %.2f %% of the samples", told, 100 * agreement)
    tell(run, {**metrics, **{f"compression/{name}": facts[name] for name in ("agreement", "bytes")}})
    return facts


def finish(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Give a run that was trained for int8 its file, from its best weights. Raises UserError."""
    floats = load_floats(path, overrides=overrides, device="cpu")
    return attach(RunFolder(path), convert(floats, "qat", Quantization()), floats, overrides)


def fake_quantized(run: LoadedRun) -> nn.Module:
    """The run's net made ready for training with int8 in mind, its ranges from training samples. Raises UserError."""
    onnx.require()
    int8.require()
    network = prepare(copy.deepcopy(run.network).cpu(), run.spec)
    observe(network, True)
    with torch.no_grad():
        for inputs in samples(run.batches("train"), Quantization.calibration_samples):
            network.eval()(inputs)
    observe(network, False)
    return network


def in_full_precision(config: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """`config` for training with rounded numbers, which bf16 and fp16 can't hold; a UserError if `words` want those."""
    name = config["precision"]["name"]
    if name in ("fp32", "tf32"):
        return dict(config)
    if any(word.startswith("precision.") for word in words):
        raise UserError(f"precision.name: method=qat needs fp32 or tf32 to round in, got '{name}'; leave it out")
    log.info("method=qat trains in fp32, not in %s: that can't hold numbers as int8 will have them", name)
    return {**config, "precision": {"name": "fp32"}}


def _facts(made: int8.Quantized, method: str, how: Quantization) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "bytes_before": made.bytes_before,
        "bytes": made.bytes,
        "int8_nodes": made.nodes,
        "float_nodes": made.left,
        "reduce_range": how.reduce_range,
    }
    if method == "quantize_static":
        facts |= {key: value for key, value in asdict(how).items() if key.startswith("calibration")}
    return facts


def _told(made: int8.Quantized) -> str:
    def listed(nodes: dict[str, int]) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in sorted(nodes.items()))

    left = f"; in floating point stay {listed(made.left)}" if made.left else ""
    return f"int8: {listed(made.nodes)}{left}; {made.bytes_before:,} bytes of ONNX become {made.bytes:,}"
