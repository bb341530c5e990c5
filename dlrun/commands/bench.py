"""dlrun bench run=DIR [OPTION=VALUE …]

How fast, how large and how good everything is that became of a run: the run itself, what was exported of it, what it
was compressed to, and what was exported of that. All are loaded into one process and called in turn, so that a noisy
machine hits all alike; a call begins with the prepared batch and ends when its logits are there. The report goes to
DIR/bench/: bench.json (every number, and the machine), bench.md, bench.png.

  artifact=all              or names, as the table has them: artifact=onnx,qat (the run itself comes along)
  batch_sizes=1,8,64        samples per call
  device=cpu                or cuda
  threads=N                 of PyTorch and ONNX Runtime alike; as PyTorch takes them if not said: physical cores, or
                            what OMP_NUM_THREADS says
  calls=100 seconds=10      of each artifact and batch size: at least so many calls and a tenth of the seconds; no
                            longer than the seconds, but for five calls
  accuracy=true             on the run's whole test split, where the data is there; not timed
  memory=true               peak memory of loading it and running the largest batch, in a process of its own, above what
                            that took with its libraries imported and the batch made
  checkpoint=best           or last: of the run itself
  data.root=DIR, plugins=[…], tracking=none and so on: as in dlrun resume

Without the data, inputs are random ones of its shape, and there is no accuracy. What can't be opened is listed with the
reason. TorchScript, torch.export and AOTInductor files hold code: those that you didn't export yourself are run only
if you name them.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import MinLen

from dlrun import reporting
from dlrun.benching import machine, table
from dlrun.benching.artifacts import Artifact, choose, find
from dlrun.benching.latency import Effort
from dlrun.build import example
from dlrun.comparison.figures import Comparison, said
from dlrun.layers import count
from dlrun.loading import Checkpoint, LoadedRun, load_run, overridable
from dlrun.logs import configure_terminal
from dlrun.machine import DEFAULT_THREADS, settle
from dlrun.options import read, run_named
from dlrun.registry import Count, Positive
from dlrun.runfolder import RunFolder
from dlrun.viz import latency, pictures

log = logging.getLogger("dlrun")


@dataclass(frozen=True, kw_only=True)
class Options:
    artifact: Annotated[list[str], MinLen(1)] = field(default_factory=lambda: ["all"])
    batch_sizes: Annotated[list[Count], MinLen(1)] = field(default_factory=lambda: [1, 8, 64])
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Count | None = None
    calls: Count = 100
    seconds: Positive = 10.0
    accuracy: bool = True
    memory: bool = True
    checkpoint: Checkpoint = "best"


SHORT = Options(batch_sizes=[1, 64], memory=False)  # after a compression
NOTES = (
    "size: of the file; of a PyTorch run its weights alone, since a checkpoint also has what training needs",
    "latency: from the prepared batch on the device to its logits; samples/s: all samples in all that time",
    "memory: peak of loading and running the largest batch, above the same process before, libraries imported",
    "FLOPs: per sample, a multiply-add counts as two, zeros too; of the network that was exported or quantised",
)


def run(words: Sequence[str]) -> int:
    """Measure, write the report, print its table."""
    configure_terminal()
    name, rest = run_named(words, "bench")
    options, overrides = read(rest, Options, "bench", _allowed)
    report(name, options, overrides)
    return 0


def _allowed(key: str) -> bool:
    """Of the config; how many threads there are, and which device, is this command's own business."""
    return overridable(key) and key != "trainer.num_threads"


def report(folder: Path | str, options: Options = SHORT, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What bench.json says, written into the run's folder and printed. Raises UserError for what can't be asked."""
    threads, before = options.threads or DEFAULT_THREADS, torch.get_num_threads()
    load = machine.description()  # before there is ours
    settle(options.device, threads)
    try:
        loaded = load_run(folder, options.checkpoint, overrides, device=options.device)
        chosen = choose(find(loaded.folder.path), options.artifact)
        compared = Comparison(loaded, threads, overrides, options.artifact)
        compared.notes += [*_busy(load), *_older(chosen), *_single_view(loaded)]
        sizes = list(dict.fromkeys(options.batch_sizes))
        try:
            compared.open(chosen)
            if options.accuracy:
                compared.judge()
            compared.time(sizes, Effort(options.calls, options.seconds))
            if options.memory:
                compared.weigh(max(sizes))
        finally:
            compared.close()
    finally:
        torch.set_num_threads(before)
    content = {
        "title": f"{loaded.config.model.name} on {loaded.config.dataset.name}, run {loaded.run_id}",
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": loaded.device.type,
        "threads": threads,
        "batch_sizes": sizes,
        "calls": options.calls,
        "seconds": options.seconds,
        "inputs": "random" if compared.test is None else "test split",
        "notes": [*compared.notes, *NOTES],
        "machine": load,
        "rows": rows(compared, chosen),
    }
    _publish(loaded, content, compared.notes)
    return content


def _busy(load: Mapping[str, Any]) -> list[str]:
    """A word on figures that are only good for comparing them with each other."""
    average, cores = load["load_average"], load["usable_cores"]
    if not average or not cores or average[0] < cores:
        return []
    return [f"the machine was busy (load {average[0]} on {cores} cores): alone, all of this would be faster"]


def _single_view(loaded: LoadedRun) -> list[str]:
    """A word on an accuracy that isn't that of the run's own test."""
    tta = loaded.config.trainer.tta
    if tta == "none":
        return []
    return [f"accuracy is of one view of each picture, as is the time; the run's test took more (trainer.tta={tta})"]


def _older(chosen: Sequence[Artifact]) -> list[str]:
    """A word on each file that was exported of a run before that was trained on."""
    notes = []
    for artifact in chosen:
        if artifact.is_run or artifact.reason or artifact.facts.get("checkpoint") != "best":
            continue
        best = RunFolder(artifact.run).read_summary().get("best") or {}
        was, now = artifact.facts.get("epoch"), best.get("epoch")
        if was is not None and now is not None and was != now:
            notes.append(f"{artifact.name} was exported of epoch {was}, and its run's best is of epoch {now} by now")
    return notes


def rows(compared: Comparison, chosen: Sequence[Artifact]) -> list[dict[str, Any]]:
    """A row per artifact. Accuracies are fractions; changes and speed-ups are against the run itself."""
    costs = {path: _costs(loaded) for path, loaded in compared.opener.runs.items()}
    found = [_row(compared, artifact, costs) for artifact in chosen]
    own = found[0]  # the run itself
    for row in found:
        if row["accuracy"] is not None and own["accuracy"] is not None:
            row["accuracy_change"] = row["accuracy"] - own["accuracy"]
        for size, figures in row["latency"].items():
            if "p50_ms" in figures and "p50_ms" in own["latency"][size]:
                figures["speedup"] = own["latency"][size]["p50_ms"] / figures["p50_ms"]
    return found


def _row(compared: Comparison, artifact: Artifact, costs: Mapping[Path, dict[str, Any]]) -> dict[str, Any]:
    opened = compared.opened.get(artifact.name)
    judged = compared.accuracy.get(artifact.name, {})
    memory = compared.memory.get(artifact.name, {})
    return {
        "name": artifact.name,
        "status": "measured" if opened else "left out",
        "reason": compared.reasons.get(artifact.name),
        "format": artifact.format,
        "runtime": opened and opened.runtime,
        "numbers": opened and opened.numbers,
        "run_id": opened and opened.run.run_id,
        "path": os.path.relpath(artifact.path, compared.run.folder.path),
        "accuracy": judged.get("acc"),
        "accuracy_change": None,
        "loss": judged.get("loss"),
        "bytes": opened and opened.bytes,
        **(costs[opened.run.folder.path] if opened else dict.fromkeys(COSTS)),
        "memory_bytes": memory.get("resident") if memory.get("cuda") is None else memory["cuda"],
        "memory": memory or None,
        "latency": compared.latency.get(artifact.name, {}),
    }


COSTS = ("parameters", "nonzero_parameters", "flops_per_sample")


def _costs(loaded: LoadedRun) -> dict[str, Any]:
    """Of a run's network: parameters, those that aren't zero, and FLOPs per sample."""
    parameters = list(loaded.network.parameters())
    try:
        flops = count(copy.deepcopy(loaded.network).cpu(), example(loaded.spec)).total.flops
    except (RuntimeError, TypeError, NotImplementedError) as error:
        log.warning("%s: its FLOPs can't be counted: %s", loaded.folder.path.name, said(error))
        flops = None
    total, nonzero = sum(p.numel() for p in parameters), sum(int(p.count_nonzero()) for p in parameters)
    return dict(zip(COSTS, (total, nonzero, flops), strict=True))


def _publish(loaded: LoadedRun, content: dict[str, Any], notes: Sequence[str]) -> None:
    """All three files are made before the first is written."""
    place = loaded.folder.path / "bench"
    text, drawn = table.markdown(content), pictures.png(partial(latency.figure, content))
    reporting.write(place / "bench.json", loaded, content)
    reporting.put(place / "bench.md", text.encode())
    reporting.put(place / "bench.png", drawn)
    print(table.terminal(content["rows"], content["batch_sizes"]))
    print(f"\n{table.machine_line(content['machine'], content['threads'])}")
    for note in notes:
        print(note)
    print(f"report {place}")
    reporting.tell(loaded, _values(content["rows"]), plots=[place / "bench.png"])


def _values(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """As trackers have them: bench/<artifact>/<figure>."""
    values: dict[str, float] = {}
    for row in found:
        start = f"bench/{row['name']}"
        facts = ("accuracy", "bytes", "memory_bytes", *COSTS)
        values |= {f"{start}/{fact}": row[fact] for fact in facts if row[fact] is not None}
        for size, figures in row["latency"].items():
            values |= {f"{start}/batch_{size}/{name}": v for name, v in figures.items() if isinstance(v, float)}
    return values
