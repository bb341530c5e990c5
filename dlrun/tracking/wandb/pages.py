"""report.html in W&B: a version of an artifact, and where it isn't large a page beside the charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LARGEST_PAGE = 20_000_000  # bytes; W&B shows it in a frame


def page(report: Path) -> dict[str, Any]:
    """The page as W&B shows it, as it is: `inject` would let it ask W&B for a style sheet."""
    import wandb

    if report.stat().st_size > LARGEST_PAGE:
        return {}
    return {"report": wandb.Html(str(report), inject=False)}


def send_report(run: Any, report: Path) -> None:
    """Into the artifact report-<run id>, of which each report that is told is a version."""
    import wandb

    artifact = wandb.Artifact(f"report-{run.id}", type="report")
    artifact.add_file(str(report), name="report.html")
    run.log_artifact(artifact)
