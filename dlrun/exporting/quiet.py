"""The exporters tell of their steps, their plans and each other's deprecation; an error is raised all the same."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

TALKATIVE = ("torch", "torch.onnx", "torch.export", "torch._inductor", "torch.utils", "onnxscript", "onnx_ir")


@contextmanager
def quiet() -> Iterator[None]:
    """No word of them on the terminal while this lasts."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings(action="ignore"):
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
