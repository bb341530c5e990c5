"""Rank and world size, and what several processes of one training must agree on.

The only file that touches the set-up of `torch.distributed`. One process is the plain case, and imports no torch.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlrun.errors import UserError


def world_size() -> int:
    """Number of processes of this training, as torchrun tells it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def refuse_several() -> None:
    """Training in several processes would write one folder several times; say so rather than do it."""
    if world_size() > 1:
        raise UserError(
            f"WORLD_SIZE={world_size()}: training in several processes isn't supported yet; start one process"
        )


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Lets one process of this machine at a time work on `folder`: several that start at once download once."""
    from filelock import FileLock

    # Not in the folder itself, which isn't made for a download that fails.
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"dlrun-{os.getuid()}-{name}.lock"):
        yield
