"""Many runs beside each other: what differs in their configs, and what it came to. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence


def run(words: Sequence[str]) -> int:
    """`dlrun report runs=…`; returns its exit code. Raises UserError."""
    from dlrun.report.comparison.command import run

    return run(words)
