"""Which run folders are meant by `runs=…`: folders, patterns, sweeps, days, and lists of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlrun.errors import UserError, choices
from dlrun.runfolder import RunFolder
from dlrun.runs import find

PATTERN = "*?["
# What a run writes into folders of its own: they are no runs, and there may be many files in them.
INSIDE = {"checkpoints", "plots", "eval", "predict", "export", "compress", "bench", "wandb", ".hydra"}


def folders(said: Sequence[str]) -> list[Path]:
    """The folders of runs that the words mean, each once, in the order of their names.

    A word is a folder, a pattern, or a list of them with commas. A run's folder is that run; any other folder, of a
    sweep, a day or all outputs, is all runs below it; `last` is the run begun last, with the sweep that it is a job of.
    A folder that was named, or that a pattern finds, and in which there is nothing of a run is returned, too: to be
    listed as that. Raises UserError for a word that means nothing at all.
    """
    found: dict[Path, Path] = {}
    for word in _separated(said):
        for path in _named(word):
            for run in _runs_of(path):
                found.setdefault(run.resolve(), run)
    return sorted(found.values(), key=_in_order)


def is_run(path: Path) -> bool:
    """Whether there is something of a run, however damaged."""
    run = RunFolder(path)
    return run.summary.exists() or run.metrics.exists() or (run.config.exists() and not _is_sweep(path))


def _separated(said: Sequence[str]) -> Iterator[str]:
    """A comma separates, but for that in a name that is there."""
    for words in said:
        if os.path.isdir(os.path.expanduser(words)):
            yield words
            continue
        listed = words.startswith("[") and words.endswith("]") and "," in words  # else it is a pattern's own: run[12]
        yield from filter(None, map(str.strip, (words[1:-1] if listed else words).split(",")))


def _named(word: str) -> list[Path]:
    path = os.path.expanduser(word)
    if word == "last":
        run = find("last")
        return [run.parent if _is_sweep(run.parent) else run]
    if os.path.isdir(path):
        return [Path(path)]
    if any(character in word for character in PATTERN):
        matches = [Path(match) for match in glob.glob(path, recursive=True)]
        folders = [match for match in matches if match.is_dir() and match.name not in INSIDE]
        if not folders:
            raise UserError(f"runs: no folder matches '{word}'")
        return folders
    if os.path.exists(path):
        raise UserError(f"runs: {word} is a file; give folders of runs")
    parent = Path(path).parent
    siblings = [place.name for place in parent.iterdir() if place.is_dir()] if os.path.isdir(parent) else []
    raise UserError(f"runs: no folder '{word}'{choices(Path(path).name, siblings).partition(' (choose')[0]}")


def _runs_of(path: Path) -> list[Path]:
    if is_run(path):
        return [path]
    return _below(path) or [path]


def _below(path: Path) -> list[Path]:
    """All runs below, not those inside a run. Of a sweep those jobs, too, that left nothing but their folder."""
    found: list[Path] = []
    try:
        children = sorted(child for child in path.iterdir() if child.is_dir() and child.name not in INSIDE)
    except OSError:
        return []
    for child in children:
        if child.is_symlink():  # it may lead back up, for ever
            continue
        job = _is_sweep(path) and child.name.isdecimal()
        found += [child] if is_run(child) or job else _below(child)
    return found


def _is_sweep(path: Path) -> bool:
    return (path / "sweep.json").exists() or (path / "multirun.yaml").exists()


def _in_order(path: Path) -> list[tuple[int, int | str]]:
    """Job 10 after job 9."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in path.parts]
