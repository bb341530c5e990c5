"""A lock on a run folder that dies with its process, however that ends."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import struct
import sys
import tempfile
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
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def is_held(path: Path) -> bool:
    """Whether a living process has the lock, this one included; False where that can't be known."""
    return bool(look(path))


def look(path: Path) -> bool | None:
    """Whether a living process has the lock; None where nobody can say: no such file, a file system without locks.

    Asks (F_GETLK) and takes nothing, so it is in nobody's way, and reads only. A record lock is lost when its process
    closes any file of that name: so what is held here isn't opened.
    """
    if path in _held:
        return True
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(file, fcntl.F_GETLK, _flock(fcntl.F_WRLCK))
    except OSError:
        return None
    finally:
        os.close(file)
    return _kind_of(answer) != fcntl.F_UNLCK


# struct flock, as the kernel has it: kind, whence, start, length, process; macOS begins with the last three.
_FLOCK, _KIND = ("qqihh", 3) if sys.platform == "darwin" else ("hhqqi4x", 0)


def _flock(kind: int) -> bytes:
    values = [0] * 5
    values[_KIND] = kind
    return struct.pack(_FLOCK, *values)


def _kind_of(answer: bytes) -> int:
    return int(struct.unpack(_FLOCK, answer)[_KIND])


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
