"""Decoded pictures, kept in memory or in a file on disk, for all processes that read them.

One record per picture: its pixels, and behind them a checksum that also stands for the file that they were read from
(its name, size and time) and for what decoded it. A record whose checksum is another counts as absent. So there is
nothing to keep in order, whoever reads and writes at the same time, and whatever a kill or a power cut leaves
half-written.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
import torch

from dlrun.data.caches import cache_folder
from dlrun.data.decode import opencv
from dlrun.data.memory import available_memory
from dlrun.errors import UserError

FORMAT = 1  # of records; one more whenever the same file gives other pixels than before
CHECKSUM = 8  # bytes
MOST = 0.8  # of the memory that is free
log = logging.getLogger("dlrun")


class CacheFile:
    """A file that is open in this process and in those that it starts: a name on disk, or nameless in memory."""

    def __init__(self, path: Path | None, length: int):
        self.path = path
        self._own(os.memfd_create("dlrun") if path is None else _open(path, length))
        self.failed = torch.zeros(1, dtype=torch.bool).share_memory_()  # to write: for one process is for all

    def _own(self, number: int) -> None:
        self.number = number
        weakref.finalize(self, os.close, number)

    def __getstate__(self) -> dict[str, Any]:  # to a process that isn't a fork of this one
        return {"path": self.path, "failed": self.failed, "number": DupFd(self.number)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.failed = state["path"], state["failed"]
        self._own(state["number"].detach())

    def read(self, buffers: Sequence[Any], place: int) -> bool:
        """Fill the buffers with what stands at `place`; False if there isn't as much, or the disk can't read it."""
        try:
            return os.preadv(self.number, buffers, place) == sum(len(buffer) for buffer in buffers)
        except OSError:
            return False

    def write(self, buffers: Sequence[Any], place: int) -> None:
        """Write, unless it failed before: the first time it does is said, and all that comes is decoded each time."""
        if self.failed:
            return
        try:
            written = os.pwritev(self.number, buffers, place)
            reason = "No space left on device" if written < sum(len(buffer) for buffer in buffers) else None
        except OSError as error:
            reason = error.strerror or str(error)
        if reason is not None and not self.failed:
            self.failed[0] = True
            log.warning(
                "data.cache: can't write to %s (%s); the pictures not in it are decoded each time", self.path, reason
            )

    def allocated(self) -> int:
        """Bytes that it takes already; a file may have holes."""
        return os.fstat(self.number).st_blocks * 512


@dataclass
class PictureCache:
    """The records of some pictures of one folder; N is their number. Made by `picture_cache`."""

    file: CacheFile
    places: np.ndarray  # (N,) int64, in the file
    stamps: np.ndarray  # (N,) uint64, from name, size and time of each picture's file
    states: np.ndarray  # (N, 2) int64: size and time
    length: int  # of a record, in bytes

    def subset(self, chosen: np.ndarray) -> PictureCache:
        return PictureCache(self.file, self.places[chosen], self.stamps[chosen], self.states[chosen], self.length)

    def get(self, index: int, pixels: np.ndarray) -> bool:
        """Fill `pixels` (H, W, 3) if the picture is here; otherwise they hold anything."""
        flat, found = pixels.reshape(-1), bytearray(CHECKSUM)
        place = int(self.places[index])
        return self.file.read([flat, found], place) and found == self._checksum(index, flat)

    def put(self, index: int, pixels: np.ndarray, state: os.stat_result) -> None:
        """Keep a picture, decoded from a file in `state`; not if the file was replaced since the run began."""
        if (state.st_size, state.st_mtime_ns) != tuple(self.states[index]):
            return
        flat = pixels.reshape(-1)
        self.file.write([flat, self._checksum(index, flat)], int(self.places[index]))

    def _checksum(self, index: int, flat: np.ndarray) -> bytes:
        """The sum of all 64-bit words, 4 µs for 224×224: it tells holes, torn writes and other files' pixels."""
        whole = len(flat) // 8 * 8
        total = int(flat[:whole].view(np.uint64).sum()) + int.from_bytes(flat[whole:].tobytes(), "little")
        return ((total + int(self.stamps[index])) % 2**64).to_bytes(CHECKSUM, "little")


def picture_cache(
    kind: Literal["ram", "disk"], folder: Path, paths: Sequence[Path], size: tuple[int, int]
) -> PictureCache:
    """A cache for the pictures `paths` of `folder`, decoded to `size` (height, width).

    On disk, it is a file in `cache_folder` that is named after the folder and the size; what an earlier run left in
    it is found again. Raises UserError if it can't be made.
    """
    if kind == "ram" and not hasattr(os, "memfd_create"):
        raise UserError("data.cache: 'ram' needs Linux, for memory that processes share; take 'disk'")
    length = size[0] * size[1] * 3 + CHECKSUM
    maker = f"{FORMAT} {size} OpenCV {opencv().__version__} Pillow {PIL.__version__} torch {torch.__version__}".encode()
    stats = [path.stat() for path in paths]
    states = np.array([(stat.st_size, stat.st_mtime_ns) for stat in stats], dtype=np.int64)
    names = [os.fsencode(path.relative_to(folder)) for path in paths]
    stamps = b"".join(_digest(name, state.tobytes(), maker) for name, state in zip(names, states, strict=True))
    path = None
    if kind == "disk":
        home = folder.resolve()
        name = re.sub(r"[^\w.-]", "_", f"{home.parent.name}-{home.name}-{size[0]}x{size[1]}")
        path = cache_folder("pictures") / f"{name}-{_digest(os.fsencode(home), maker).hex()}.pixels"
    file = CacheFile(path, length * len(paths))
    return PictureCache(file, np.arange(len(paths)) * length, np.frombuffer(stamps, np.uint64), states, length)


def _digest(*parts: bytes) -> bytes:
    return blake2b(b"\0".join(parts), digest_size=8).digest()


def check_room(kind: Literal["ram", "disk"], caches: Sequence[tuple[PictureCache, int]]) -> None:
    """Raise UserError unless there is room for so many pictures of each cache, beside what is there already."""
    files = {id(cache.file): cache.file for cache, _ in caches}.values()
    needed = sum(cache.length * count for cache, count in caches) - sum(file.allocated() for file in files)
    if kind == "ram":
        free, where = int(available_memory() * MOST), "in memory, with some left for the training"
        instead = "data.cache=disk keeps them in a file"
    else:
        free, where = shutil.disk_usage(cache_folder("pictures")).free, f"in {cache_folder('pictures')}"
        instead = "XDG_CACHE_HOME names another place"
    if needed > free:
        raise UserError(
            f"data.cache: '{kind}' needs {needed / 1e9:.1f} GB for the decoded pictures, and {free / 1e9:.1f} GB are "
            f"free {where}; {instead}, a smaller data.image_size or data.limit needs less"
        )


def _open(path: Path, length: int) -> int:
    """The file at `path`, made if there is none, and no longer than `length`: a folder may have lost pictures."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if os.fstat(number).st_size > length:
            os.ftruncate(number, length)
    except OSError as error:
        raise UserError(
            f"data.cache: can't write {path} ({error.strerror}); XDG_CACHE_HOME names another place"
        ) from error
    return number
