"""A figure becomes a file, and one that can't be drawn costs no more than itself."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.atomic import atomic_write
from dlrun.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("dlrun")

DPI = 130


class LeftOut(Exception):
    """Why a picture would say nothing."""


def png(draw: Callable[[], Figure], dpi: int = DPI) -> bytes:
    """What `draw` gives as a file's content."""
    from dlrun.viz.style import written_in

    file = io.BytesIO()
    with written_in():
        draw().savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def put(path: Path, draw: Callable[[], Figure], dpi: int = DPI) -> str | None:
    """Write what `draw` gives as a PNG, whole or not at all; returns why there is none, if there is none.

    An older picture of that name is taken away then: it would be taken for this one. Raises nothing.
    """
    try:
        content = png(draw, dpi)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(content)
        return None
    except LeftOut as reason:
        said = str(reason)
    except Exception as error:
        log.debug("picture %s", path.name, exc_info=True)
        said = printable(f"it couldn't be drawn ({type(error).__name__}: {error})")
    with suppress(OSError):
        path.unlink(missing_ok=True)
    return said
