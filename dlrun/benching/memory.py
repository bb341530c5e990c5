"""How much memory a model takes to load and to run, as the process that does it sees itself."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CALLS = 3  # the first may plan its buffers, the second compile, the third is how it goes on
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(load: Callable[[], Callable[[Tensor], Any]], inputs: Tensor) -> dict[str, int | None]:
    """What loading a model and running it on `inputs` takes at its highest, above what there was before, in bytes.

    `resident`: physical memory of this process, its weights, activations, copies while loading, and code of libraries
    that is only then used; `cuda`: what torch allocated on the inputs' GPU, None on a CPU. To be called in a process
    that has done nothing else, with its libraries imported and `inputs` made: those two aren't counted.
    """
    cuda = inputs.device if inputs.is_cuda else None
    gc.collect()
    allocated = 0
    if cuda is not None:
        torch.cuda.reset_peak_memory_stats(cuda)
        allocated = torch.cuda.memory_allocated(cuda)
    _forget_peak()
    before = resident()
    model = load()
    with torch.inference_mode():
        for _ in range(CALLS):
            model(inputs)
    if cuda is not None:
        torch.cuda.synchronize(cuda)
    return {
        "resident": max(0, highest() - before),
        "cuda": None if cuda is None else torch.cuda.max_memory_allocated(cuda) - allocated,
        "before": before,
    }


def resident() -> int:
    """Bytes of physical memory of this process now; where the system doesn't say, the most there ever was."""
    return _status("VmRSS") or _most()


def highest() -> int:
    """The most there was since `_forget_peak`; where the system can't forget, since the process began."""
    return _status("VmHWM") or _most()


def _forget_peak() -> None:
    try:
        CLEAR.write_text("5")
    except OSError:  # not Linux, or not allowed: then only what goes beyond the earlier peak is seen
        return


def _status(name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _most() -> int:
    import resource  # not on Windows
    import sys

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
