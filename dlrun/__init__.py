"""dlrun: a config-driven experiment runner for deep learning.

import dlrun

run = dlrun.load_run("outputs/2026-11-23/07-38-12-3fa9c1xz")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlrun.loading import LoadedRun as LoadedRun
    from dlrun.loading import load_run as load_run

__version__ = "0.1.0"
__all__ = ["LoadedRun", "__version__", "load_run"]


def __getattr__(name: str) -> Any:
    """`load_run` is imported when it is asked for: it needs torch, and `dlrun --help` doesn't."""
    if name in ("load_run", "LoadedRun"):
        from dlrun import loading

        return getattr(loading, name)
    raise AttributeError(f"module 'dlrun' has no attribute {name!r}")
