"""Whatever a run's folder says, whoever looks at it shows the rest: reports, comparison, watch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dlrun.report import making
from dlrun.report.comparison.command import compare
from dlrun.report.comparison.content import html
from dlrun.watch.following import look
from dlrun.watch.observation import Observer
from dlrun.watch.view import plain, view

ODD: list[Any] = [None, -1.5, float("nan"), 10**400, "x", "\ud800", True, [], [[1]], {"a": None}, {"epoch": [1]}]
SUMMARY: dict[str, Any] = {
    "run_id": "abc", "status": "finished", "error": None, "exit_code": 0, "started": "2026-11-23T07:38:12+00:00",
    "seconds": 12.5, "epochs": 2, "steps": 4, "parameters": 650, "samples_per_second": 100.0, "command": ["dlrun"],
    "best": {"epoch": 2, "val/acc": 0.7}, "test": {"test/acc": 0.6}, "time": {"starting": 1.0, "training": 9.0},
    "choices": {"model": "cnn"}, "changed": {"optimizer.lr": 0.1}, "git": {"commit": "f" * 40, "dirty": True},
    "versions": {"torch": "2"}, "machine": {"device": "cpu"}, "resumed": [{"step": 2, "command": ["dlrun"]}],
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "seed": 0, "notes": None, "tags": ["a"], "model": {"name": "cnn"}, "optimizer": {"lr": 0.01},
    "trainer": {"monitor": "val/acc", "mode": None, "max_epochs": 2, "max_time": None, "patience": None},
}  # fmt: skip
ROWS = "epoch,step,lr,train/loss,val/acc,seconds\n1,2,0.001,1.5,0.5,4\n2,4,0.0005,1.0,0.7,8\n"


def spoilt(content: dict[str, Any], value: Any) -> Iterator[dict[str, Any]]:
    """One key after the other with `value` in its place, and what is in a mapping all at once."""
    for key, inside in content.items():
        yield {**content, key: value}
        if isinstance(inside, dict):
            yield {**content, key: dict.fromkeys(inside, value)}


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:12])
def test_it_is_shown(tmp_path: Path, value: Any) -> None:
    run = tmp_path / "run"
    (run / "plots").mkdir(parents=True)
    (run / "metrics.csv").write_text(ROWS)
    contents = [(summary, CONFIG) for summary in spoilt(SUMMARY, value)]
    contents += [(SUMMARY, config) for config in spoilt(CONFIG, value)]
    for number, (summary, config) in enumerate(contents):
        (run / "summary.json").write_text(json.dumps(summary))
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        for status in ("finished", "running")[: 1 + (summary is SUMMARY)]:
            if status != summary["status"]:
                (run / "summary.json").write_text(json.dumps({**summary, "status": status}))
            moment = look(Observer(run))
            assert "status" in plain(moment.seen, moment.status, moment.pace)
            assert view(moment.seen, moment.status, moment.pace, 90, 30)
        if number % 7 == ODD.index(value) % 7:  # the pages take 50 ms each
            assert "Curves" in making.make(run)
            assert "1 runs" in html(compare([run]))
