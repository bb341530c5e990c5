"""dlrun export: the net of a run as a file for other programs, checked against the net.

  dlrun export run=DIR format=onnx          for ONNX Runtime, and what else reads ONNX
  dlrun export run=DIR format=pt2           torch.export's graph, for torch.export.load
  dlrun export run=DIR format=aoti          compiled to machine code (AOTInductor), for C++ and Python; needs g++
  dlrun export run=DIR format=torchscript   for torch.jit.load; deprecated by PyTorch

Options:
  preprocess=true       the normalisation is in the graph: it takes uint8 pixels (batch, height, width, channels), or a
                        table's rows as they were measured
  half=true             weights and arithmetic in float16; what goes in and what comes out stays as it is
  quantized=DIR         the int8 net that `dlrun compress` made of this run, checked against this run (format=onnx)
  checkpoint=best|last  (best)
  tolerance=1e-4        how far from the net the file may be: the largest error as a share of the largest logit (1e-4;
                        half 2e-2), of int8 the share of samples that get another class (0.05)
  device=cpu|cuda       what the file is made and checked on (cpu; aoti the best there is)
  data.root=… data.eval_batch_size=… trainer.num_threads=… tracking=none plugins=[…]

The batch's size is open, and so is the length of a text. Class names, mean and std, shapes, the tokenizer, the run and
its version of dlrun are in the file: ONNX's metadata_props, the extra file dlrun.json (torchscript, pt2), AOTInductor's
get_metadata(). It is loaded again, compared with the net on batches of several sizes, and judged on the test split (if
the data is gone: compared on random inputs). A file that isn't within the tolerance ends in .failed.SUFFIX, and the
exit code is 1.

Writes DIR/export/FORMAT[-half][-uint8|-raw][-int8].SUFFIX and a .json beside it.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dlrun.build import channels_last
from dlrun.commands.checking import check
from dlrun.commands.opening import opened
from dlrun.errors import OptionError, UserError, choices
from dlrun.exporting import dynamism, metadata, own_packages, parity
from dlrun.exporting.formats import FORMATS, Format
from dlrun.exporting.graph import Graph
from dlrun.loading import Checkpoint, LoadedRun
from dlrun.locks import holding
from dlrun.registry import Positive
from dlrun.reporting import tell, write
from dlrun.runfolder import RunFolder

log = logging.getLogger("dlrun")

LOCK = ".lock"  # of the folder that a file is made in
NAMED = ("data.root", "data.file")
ELSEWHERE = ("onnx", "torchscript", "pt2")  # run on any machine: made on the CPU unless another device is asked for


@dataclass(frozen=True, kw_only=True)
class Options:
    format: str
    half: bool = False
    preprocess: bool = False
    quantized: Path | None = None
    checkpoint: Checkpoint = "best"
    tolerance: Positive | None = None


@dataclass(frozen=True)
class Export:
    """What is to be made of which run."""

    run: LoadedRun
    options: Options
    format: Format
    int8: Path | None  # the file to be copied

    @property
    def name(self) -> str:
        options, image = self.options, self.run.spec.modality == "image"
        raw = "-uint8" if image else "-raw"
        parts = {"-half": options.half, raw: options.preprocess, "-int8": self.int8 is not None}
        return options.format + "".join(part for part, wanted in parts.items() if wanted)

    @property
    def folder(self) -> Path:
        return self.run.folder.path / "export"

    @property
    def precision(self) -> str:
        return "int8" if self.int8 is not None else "float16" if self.options.half else "float32"

    def takes(self, raw: Tensor) -> Tensor:
        """A raw batch of the data as the file takes it."""
        spec = self.run.spec
        if not self.options.preprocess:
            return self.run.prepare(raw.clone())
        if spec.modality == "image":
            return raw.round().clamp(0, 255).to(torch.uint8) if raw.is_floating_point() else raw
        mean, std = (torch.tensor(values, dtype=torch.float64, device=raw.device) for values in (spec.mean, spec.std))
        return (raw * std + mean).float()

    def gives(self, raw: Tensor) -> Tensor:
        """The same batch as the net takes it."""
        pixels = self.options.preprocess and self.run.spec.modality == "image"
        return self.run.prepare(self.takes(raw) if pixels else raw.clone())


def run(words: Sequence[str]) -> int:
    """Export, check and tell; returns the exit code."""
    began = time.monotonic()
    export = asked(words)
    if export.format.note:
        log.info("%s", export.format.note)
    if export.options.format == "aoti":
        log.info("compiling for %s; this takes 10 to 60 s", export.run.device)
    with _room(export) as folder:
        path = Path(folder, export.name + export.format.suffix)
        _write(export, path)
        checked, test = _check(export, path)
        kept = _put_in_place(export, path, checked.passed)
    size = kept.stat().st_size
    write(
        export.folder / f"{export.name}.json",
        export.run,
        {
            "format": export.options.format,
            "file": kept.name,
            "half": export.options.half,
            "preprocess": export.options.preprocess,
            "quantized": None if export.int8 is None else str(export.options.quantized or export.run.folder.path),
            "bytes": size,
            "sha256": own_packages.sha256(kept),
            "parity": checked.plain(),
            "test": test,
            "seconds": time.monotonic() - began,
        },
    )
    _print(export, kept, checked, test, time.monotonic() - began)
    found = {"max_error": checked.max_error, "agreement": checked.agreement, "bytes": size} | (test or {})
    tell(export.run, {f"export/{export.name}/{name}": value for name, value in found.items()})
    return 0 if checked.passed else 1


def asked(words: Sequence[str]) -> Export:
    """What the words ask for. Raises UserError for whatever can't be exported, before anything is written."""
    named = [word.partition("=")[2] for word in words if word.startswith("format=")]
    if named and named[-1] not in FORMATS:
        raise UserError(f"format: unknown format '{named[-1]}'{choices(named[-1], FORMATS)}")
    if named and named[-1] in ELSEWHERE and not any(word.startswith("device=") for word in words):
        words = [*words, "device=cpu"]
    run, options, overrides = opened(words, Options, "export")
    if options.format == "onnx" and run.device.type != "cpu":
        raise UserError("device: an .onnx is for any device, and checked on the CPU; leave device out")
    format = FORMATS[options.format]
    format.require()
    if any(word.partition("=")[0] in NAMED for word in overrides):
        run.split("test")  # what is named has to be there, unlike the run's own
    return Export(run, options, format, _int8_file(run, options))


def _int8_file(run: LoadedRun, options: Options) -> Path | None:
    """The int8 net that is meant: of the run itself, or of the run that `quantized` names."""
    own = run.network is not run.model
    if not own and options.quantized is None:
        return None
    key = "quantized" if options.quantized is not None else "format"
    if own and options.quantized is not None:
        raise UserError("quantized: this run is int8 itself; leave it out, or give the run that it came from as run=")
    if options.format != "onnx":
        raise UserError(f"{key}: an int8 net is ONNX Runtime's, there is no {options.format} of it; take format=onnx")
    for option in ("half", "preprocess"):
        if getattr(options, option):
            raise UserError(
                f"{option}: the int8 file is copied as it was calibrated, on normalised inputs; leave it out"
            )
    folder = run.folder if options.quantized is None else RunFolder(options.quantized)
    if options.quantized is not None:
        parent = folder.read_summary().get("parent") or {}
        if parent.get("run_id") != run.run_id:
            raise UserError(f"quantized: {folder.path} wasn't made from run {run.run_id}; see dlrun compress --help")
    file = folder.int8
    if not file.exists():
        raise UserError(f"{key}: there is no {file}; dlrun compress run=… method=quantize_static makes one")
    return file


@contextmanager
def _room(export: Export) -> Iterator[str]:
    """Where the file lies until it is checked; what a killed process left of the same export goes."""
    prefix = f".{export.name}."
    with ExitStack() as stack:
        try:
            export.folder.mkdir(exist_ok=True)
            for left in export.folder.glob(f"{prefix}*"):
                with suppress(UserError, OSError), holding(left / LOCK):  # unless another process is at work in it
                    shutil.rmtree(left, ignore_errors=True)
            room = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=export.folder))
            stack.enter_context(holding(Path(room, LOCK)))
        except OSError as error:
            raise UserError(f"can't write into {export.folder} ({error.strerror})") from error
        yield room


def _write(export: Export, path: Path) -> None:
    run, options = export.run, export.options
    texts = metadata.describe(
        run.spec,
        preprocess=options.preprocess,
        half=options.half,
        format=options.format,
        model=run.config.model.name,
        run_id=run.run_id,
        checkpoint=run.checkpoint.stem,
        precision=export.precision,
        device=run.device.type,
    )
    if export.int8 is not None:
        from dlrun.exporting import onnx

        onnx.copy(export.int8, path, texts)
        return
    last = channels_last(run.config.trainer.channels_last, run.network, run.spec) and not export.format.arranges
    try:
        graph = Graph(run.network, run.spec, preprocess=options.preprocess, half=options.half, channels_last=last)
    except OptionError as error:
        raise UserError(str(error)) from error
    inputs = dynamism.example(run.spec, options.preprocess, run.device)
    try:
        export.format.write(graph, run.spec, path, texts, inputs)
        own_packages.remember(path)
    except (UserError, MemoryError):
        raise
    except OSError as error:
        raise UserError(f"can't write {error.filename or export.folder / path.name} ({error.strerror})") from error
    except Exception as error:  # of the exporters' own classes, for what of a net they can't say in their format
        log.debug("", exc_info=True)
        reason = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
        raise UserError(f"format: {run.config.model.name} can't be exported to {options.format}: {reason}") from error


def _check(export: Export, path: Path) -> tuple[parity.Parity, dict[str, float] | None]:
    given = export.options.tolerance
    tolerance = parity.TOLERANCES[export.precision] if given is None else given
    measure: parity.Measure = "disagreement" if export.int8 is not None else "error"
    return check(export.run, path, export.gives, export.takes, tolerance, measure)


def _put_in_place(export: Export, path: Path, passed: bool) -> Path:
    """The file under its own name, or as a failed one; what an earlier export left under either goes."""
    good = export.folder / path.name
    failed = good.with_name(f"{export.name}.failed{path.suffix}")
    (export.folder / f"{export.name}.json").unlink(missing_ok=True)  # it is of the file that goes
    kept, other = (good, failed) if passed else (failed, good)
    other.unlink(missing_ok=True)
    os.replace(path, kept)
    return kept


def _print(export: Export, path: Path, checked: parity.Parity, test: dict[str, float] | None, seconds: float) -> None:
    texts = metadata.describe(export.run.spec, preprocess=export.options.preprocess)
    shape = texts["input_shape"].strip("[]").replace('"', "")
    print(f"takes  {texts['input_dtype']} ({shape}), gives logits; {export.precision}, {_size(path)}")
    on = f"{checked.samples} {checked.inputs} samples, in batches of {', '.join(map(str, checked.batch_sizes))}"
    error = f"error {checked.max_error:.1e} of the largest logit, " if checked.error is None else ""
    print(f"equal  {error}{100 * checked.agreement:.4g} % equal predictions on {on}")
    if test is not None:
        print(f"test   acc {100 * test['acc']:.2f} %  loss {test['loss']:.4f}")
    if not checked.passed:
        why = checked.error or f"the {checked.measure} is above the tolerance, {checked.tolerance:g}"
        log.error("failed: %s", why)
    print(f"file   {path}   ({seconds:.1f} s)")


def _size(path: Path) -> str:
    size = float(path.stat().st_size)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
