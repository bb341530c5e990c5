"""Where what took long to make is kept for later runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """~/.cache/dlrun/`kind`, or below XDG_CACHE_HOME; one that isn't absolute is ignored, as its specification says."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = chosen if chosen.is_absolute() else Path(os.path.expanduser("~"), ".cache")
    return home / "dlrun" / kind
