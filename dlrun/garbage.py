"""Python's garbage collector while a command starts.

What is imported stays. Looking through it for garbage again and again is a fifth of the time that `import torch` takes.
"""

from __future__ import annotations

import gc

USUAL = gc.get_threshold()
RARELY = 1_000_000  # new objects between two looks


def look_rarely() -> None:
    """Until `look_as_usual`; a command that never calls it is looked after too, once it has made a million objects."""
    gc.set_threshold(RARELY)


def look_as_usual() -> None:
    """And never again at what there is now."""
    if gc.get_threshold()[0] == RARELY:
        gc.freeze()
        gc.set_threshold(*USUAL)
