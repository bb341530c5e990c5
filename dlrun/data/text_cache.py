"""Tokenised once: what texts became is kept in the user's cache folder, and taken from there at the next start.

A file is named by all that its content depends on, begins with a checksum, and holds plain values and tensors; one that
is damaged is made again. Where nothing can be written, all goes on without.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dlrun.atomic import atomic_write
from dlrun.data.caches import cache_folder

log = logging.getLogger("dlrun")

MOST_FILES, MOST_BYTES = 20, 2**30  # older ones go; the newest stays, whatever its size
CHECKSUM = 32  # bytes
ABANDONED = 3600  # seconds: who began to write a file then is dead


def cached(facts: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives (plain values and tensors), or gave before for the same `facts` (plain values)."""
    said = json.dumps(facts, sort_keys=True)
    path = cache_folder("texts") / f"{hashlib.blake2b(said.encode(), digest_size=16).hexdigest()}.tokens"
    try:
        found: dict[str, Any] = _read(path, said)
        with suppress(OSError):
            os.utime(path)  # it was used
        return found
    except OSError:  # it isn't there, most likely; if it can't be read, it can't be written either, and that is said
        pass
    except Exception:  # torch and its reader raise all sorts of them on a damaged file, in many lines
        log.warning("%s is damaged: the texts are tokenised again", path)
    made = make()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # texts may be private
        _write(path, said, made)
    except OSError as error:
        log.warning("the texts are tokenised at each start: %s can't be written (%s)", path, error.strerror)
    else:
        _tidy(path)
    return made


def _read(path: Path, facts: str) -> dict[str, Any]:
    content = memoryview(path.read_bytes())
    if hashlib.blake2b(content[CHECKSUM:], digest_size=CHECKSUM).digest() != content[:CHECKSUM]:
        raise ValueError("its checksum is wrong")
    state = torch.load(io.BytesIO(content[CHECKSUM:]), weights_only=True)
    if state["facts"] != facts:
        raise ValueError("it is of other texts")
    made: dict[str, Any] = state["made"]
    return made


def _write(path: Path, facts: str, made: dict[str, Any]) -> None:
    buffer = io.BytesIO()  # torch's own writer, given a file, hides what a full disk says
    torch.save({"facts": facts, "made": made}, buffer)
    content = buffer.getbuffer()
    with atomic_write(path) as file:
        file.write(hashlib.blake2b(content, digest_size=CHECKSUM).digest())
        file.write(content)


def _tidy(newest: Path) -> None:
    """Remove what was used longest ago, and what nobody will finish."""
    files = []
    for path in newest.parent.iterdir():
        with suppress(OSError):  # another process may tidy too
            status = path.stat()
            files.append((path != newest, -status.st_mtime, status.st_size, path))
    total = kept = 0
    for _, age, size, path in sorted(files):
        if path.suffix == ".partial":
            stays = time.time() + age < ABANDONED
        else:
            total, kept = total + size, kept + 1
            stays = path == newest or (total <= MOST_BYTES and kept <= MOST_FILES)
        if not stays:
            with suppress(OSError):
                path.unlink()
