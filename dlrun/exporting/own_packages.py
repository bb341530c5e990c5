"""Which files this user exported: all but ONNX can run code when they are opened, and these are known not to.

An AOTInductor package is machine code. A TorchScript file is a program, whose `__setstate__` runs as it is loaded, and
whose operators read and write files. torch.export.load hands texts of a .pt2 to sympy's `sympify` and to `exec`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from dlrun.data.caches import cache_folder
from dlrun.errors import UserError

CACHE = "packages"  # an empty file for each, named by the SHA-256 of what was exported


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remember(path: Path) -> None:
    """This file was made here. Raises UserError if that can't be noted: nobody here could open it then."""
    folder = cache_folder(CACHE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / sha256(path)).touch()
    except OSError as error:
        raise UserError(
            f"{folder}: can't note there what was exported ({error.strerror}); see XDG_CACHE_HOME"
        ) from error


def known(path: Path) -> bool:
    """Whether the very bytes of this file were exported by this user on this machine."""
    return (cache_folder(CACHE) / sha256(path)).exists()
