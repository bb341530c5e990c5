"""Files that are whole or not there: written beside their name, flushed to disk, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends, and leaves nothing when it raises.

    What `path` held before stays as `keep`, if that is given: at every moment one of the two is a whole file.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            _keep(path, keep)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def create(path: Path, content: bytes) -> None:
    """A whole file that wasn't there. Raises FileExistsError if it was."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    flush_folder(path.parent)


def _link(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: for a moment it is there and empty
        with path.open("xb") as file:
            file.write(partial.read_bytes())


def _keep(path: Path, keep: Path) -> None:
    """Give what `path` names a second name, so that it is never without one."""
    if keep.exists() and keep.samefile(path):  # a process was killed between this and its rename
        return  # and rename does nothing between two names of one file: it would leave both
    link = keep.with_name(f".{keep.name}.{os.getpid()}.partial")
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links: for a moment there is `keep` alone
        os.replace(path, keep)
    else:
        os.replace(link, keep)


def flush_folder(folder: Path) -> None:
    """A rename is on disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)
