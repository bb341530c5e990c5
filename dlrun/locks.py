"""A lock on a run folder that dies with its process, however that ends."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlrun.errors import UserError

_held: dict[Path, int] = {}  # path → open file: closing it gives the lock back


def hold(path: Path) -> None:
    """Lock the file `path` until `release`, or the end of this process. Raises UserError if another one has it.

    A POSIX record lock: it belongs to the process, so loader workers that outlive it for seconds don't inherit it, as
    they would flock's; and it works over NFS.
    """
    if path in _held:
        return
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(file)
    except (BlockingIOError, PermissionError):
        owner = os.read(file, 200).decode(errors="replace").strip()
        os.close(file)
        raise UserError(f"{path.parent} is being trained by {owner or 'another process'}; one at a time") from None
    except OSError:  # a file system that has no locks: nothing to hold on to
        os.close(file)
        return
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held[path] = file


def _take(file: int) -> None:
    """Somebody who only asks has the lock for a moment."""
    for patience in (0.01, 0.05, 0.1):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            time.sleep(patience)
        else:
            return
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(path: Path) -> bool:
    """Whether a living process has the lock, this one included; asks without taking it.

    A record lock is lost when its process closes any file of that name: so what is held here isn't opened.
    """
    if path in _held:
        return True
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:  # a file system that has no locks, where `hold` has none either
        return False
    else:
        return False
    finally:
        os.close(file)


def release(path: Path) -> None:
    """Give the lock back, if it is held."""
    file = _held.pop(path, None)
    if file is not None:
        os.close(file)


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """`hold` for the block; a lock that was held before it stays. Raises UserError as that does."""
    before = path in _held
    hold(path)
    try:
        yield
    finally:
        if not before:
            release(path)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Lets one process of this machine at a time work on `folder`: several that start at once download once."""
    from filelock import FileLock

    # Not in the folder itself, which isn't made for a download that fails.
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"dlrun-{os.getuid()}-{name}.lock"):
        yield
