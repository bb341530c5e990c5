"""What a run folder holds that can be run: the run itself, what was exported of it, and what it was compressed to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlrun.errors import UserError, choices
from dlrun.exporting.formats import FORMATS
from dlrun.runfolder import RunFolder

PYTORCH = "pytorch"  # the format of a run's own network
ALL = "all"  # in place of names
INT8 = "int8"  # what a run that was quantised is called in its own report: it isn't run by PyTorch
ENDED_WELL = ("finished", "stopped_early")


@dataclass(frozen=True)
class Artifact:
    """One row of the table: a run, or a file that was exported of one.

    `name` says the way from the run folder: `pytorch`, `onnx`, `prune_structured-0.5`, `prune_structured-0.5/onnx`.
    With a `reason`, it can't be measured.
    """

    name: str
    format: str  # pytorch, or what it was exported to
    run: Path  # the folder of the run that it is, or that it was exported of
    path: Path  # the checkpoint or the file
    facts: Mapping[str, Any] = field(default_factory=dict)  # of a compressed run: method, amount; of a file: its JSON
    reason: str | None = None
    folder_name: str = ""  # its longer name, by which a compressed run can always be told from others

    @property
    def is_run(self) -> bool:
        return self.format == PYTORCH


def find(folder: Path) -> list[Artifact]:
    """All of them, the run itself first; what is damaged or unfinished has a reason. Opens nothing but JSON."""
    itself = Artifact(PYTORCH, PYTORCH, folder, RunFolder(folder).best, facts=_compression(folder))
    if not str(itself.facts.get("method", "prune")).startswith("prune"):
        itself = replace(itself, name=INT8)
    return [itself, *_exports(folder, ""), *_compressed(folder, "")]


def _compression(folder: Path) -> Mapping[str, Any]:
    """What its summary says of how a run was compressed; nothing of one that wasn't. Raises UserError."""
    facts = RunFolder(folder).read_summary().get("compression")
    return facts if isinstance(facts, dict) else {}


def choose(found: Sequence[Artifact], names: Sequence[str]) -> list[Artifact]:
    """Of what `find` found: what `names` say, and the run itself, which all is compared with. Raises UserError."""
    if list(names) == [ALL]:
        return list(found)
    known = {name: artifact for artifact in found for name in (artifact.folder_name, artifact.name) if name}
    for name in names:
        if name not in known:
            raise UserError(f"artifact: there is no '{name}'{choices(name, [ALL, *(a.name for a in found)])}")
    chosen = [known[name] for name in names]
    return [found[0], *(artifact for artifact in found[1:] if artifact in chosen)]


def _exports(folder: Path, prefix: str) -> Iterator[Artifact]:
    for record in sorted((folder / "export").glob("*.json"), key=lambda path: path.stem):
        artifact = Artifact(prefix + record.stem, record.stem.partition("-")[0], folder, record)
        try:
            facts = json.loads(record.read_text(encoding="utf-8"))
            parity = facts["parity"]
            path = record.parent / Path(facts["file"]).name
            artifact = replace(artifact, format=str(facts["format"]), path=path, facts=facts)
            passed = parity["passed"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield replace(artifact, reason=f"damaged: {record.name} can't be read ({type(error).__name__})")
            continue
        if not _is_what_it_says(artifact, record):  # who names onnx wants no TorchScript, which can hold code
            yield replace(artifact, reason=f"damaged: {record.name} says that {path.name} is {artifact.format}")
        elif not passed:
            reason = f"failed its check when it was exported: max error {parity.get('max_error')}"
            yield replace(artifact, reason=reason)
        elif not path.exists():
            yield replace(artifact, reason=f"its file {path.name} is missing")
        elif facts.get("bytes") not in (None, size(path)):
            yield replace(artifact, reason=f"damaged: {path.name} isn't as large as when it was exported")
        else:
            yield artifact


def _is_what_it_says(artifact: Artifact, record: Path) -> bool:
    """Whether the name, the format and the file's suffix are those of one export."""
    known = FORMATS.get(artifact.format)
    named = record.stem.partition("-")[0] == artifact.format
    return named and known is not None and artifact.path.suffix == known.suffix


def _compressed(folder: Path, prefix: str) -> Iterator[Artifact]:
    """Compressed runs, what was exported of each, and what each was compressed to in turn."""
    top = folder / "compress"
    children = [] if top.is_symlink() else sorted(top.glob("[!.]*"))  # a link may lead back up, for ever
    here = [_compressed_run(child) for child in children if child.is_dir() and not child.is_symlink()]
    for artifact, short in zip(here, _short_names(here), strict=True):
        name = prefix + short
        yield replace(artifact, name=name, folder_name=prefix + artifact.run.name)
        yield from _exports(artifact.run, f"{name}/")
        yield from _compressed(artifact.run, f"{name}/")


def _compressed_run(folder: Path) -> Artifact:
    run = RunFolder(folder)
    artifact = Artifact(folder.name, PYTORCH, folder, run.best)
    try:
        summary = run.read_summary()
    except UserError as error:
        return replace(artifact, reason=f"unfinished or damaged: {error}")
    artifact = replace(artifact, facts=_compression(folder))
    if summary.get("status") not in ENDED_WELL:
        return replace(artifact, reason=f"unfinished: its status is '{summary.get('status')}'")
    if not run.best.exists():
        return replace(artifact, reason=f"damaged: it has no {run.best.relative_to(folder)}")
    return artifact


def _short_names(runs: Sequence[Artifact]) -> list[str]:
    """The method with the amount where one is enough to tell a run from its neighbours, else the folder's name."""
    names = []
    for run in runs:
        method, amount = run.facts.get("method"), run.facts.get("amount")
        amounts = "" if amount is None else f"-{amount:g}" if isinstance(amount, float) else f"-{amount}"
        names.append(f"{method}{amounts}" if isinstance(method, str) and method else run.run.name)
    often = Counter(names)
    return [name if often[name] == 1 else run.run.name for name, run in zip(names, runs, strict=True)]


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
