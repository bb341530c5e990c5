"""What was named as input → the files that are meant: files, folders, globs, and the names that stdin lists."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dlrun.errors import UserError, choices

STDIN = "-"


@dataclass(frozen=True)
class Sample:
    """Something to predict on: `name` is where it stands (a path, or file:line), `value` what a reader takes."""

    name: str
    value: Any


@dataclass(frozen=True)
class Unreadable:
    """Something that can't be, and why."""

    name: str
    reason: str


def files(named: Iterable[str], suffixes: Collection[str], literal: bool = False) -> Iterator[Path | Unreadable]:
    """The files that are meant, in the order in which they were named, and sorted in a folder.

    A folder stands for all files in it, however deep, that have one of the `suffixes`; what is hidden is left out. A
    file that is named by itself may have any. `literal` names are no patterns, and nobody has mistyped them.
    """
    for name in named:
        path = name if literal else os.path.expanduser(name)  # the shell doesn't, after an equals sign
        if not literal and not os.path.lexists(path) and glob.has_magic(path):
            yield from _matches(path, suffixes)
        else:
            yield from _named(path, suffixes, "" if literal else _near(path))


def listed_on_stdin() -> Iterator[str]:
    """The names on stdin, one on each line."""
    for line in stdin():
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)


def stdin() -> BinaryIO:
    """Raises UserError where there is none."""
    if sys.stdin is None:
        raise UserError("input=-: there is nothing on stdin")
    return sys.stdin.buffer


def shown(path: str | Path) -> str:
    """A path as text: bytes in it that aren't UTF-8 are written as escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _matches(pattern: str, suffixes: Collection[str]) -> Iterator[Path | Unreadable]:
    found = sorted(glob.glob(pattern, recursive=True))
    if "**" in pattern:  # matches the folders, and what is in them
        found = [name for name in found if not os.path.isdir(name)]
    if not found:
        yield Unreadable(shown(pattern), "matches nothing")
    for name in found:
        yield from _named(name, suffixes)


def _named(name: str, suffixes: Collection[str], near: str = "") -> Iterator[Path | Unreadable]:
    path = Path(name)
    if os.path.isdir(name):  # where Path.is_dir raises, for a name that is too long, this is False
        empty = True
        for found in _inside(path, suffixes):
            empty = False
            yield found
        if empty:
            yield Unreadable(shown(path), f"holds nothing to read (looked for {', '.join(sorted(suffixes))})")
    elif os.path.isfile(name):
        yield path
    elif os.path.exists(name):
        yield Unreadable(shown(path), "is neither a file nor a folder")
    else:
        yield Unreadable(shown(path), f"there is no such file or folder{near}")


def _near(name: str) -> str:
    """What may have been meant by a name that isn't there."""
    if os.path.lexists(name):
        return ""
    try:
        siblings = os.listdir(os.path.dirname(name) or ".")
    except OSError:
        return ""
    return choices(os.path.basename(name), siblings).partition(" (choose")[0]


def _inside(folder: Path, suffixes: Collection[str]) -> Iterator[Path | Unreadable]:
    """Links to folders are followed, but no folder is visited twice: a link may lead back."""
    refused: list[OSError] = []
    visited: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=refused.append, followlinks=True):
        state = os.stat(place)
        if (state.st_dev, state.st_ino) in visited:
            folders.clear()
            continue
        visited.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in suffixes:
                continue
            if path.is_file():
                yield path
            elif path.is_symlink():
                yield Unreadable(shown(path), "is a link to what isn't there")
    for error in refused:
        yield Unreadable(shown(error.filename), f"can't be read ({error.strerror})")
