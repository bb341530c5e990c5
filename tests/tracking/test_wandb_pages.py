"""The report in W&B: an artifact and a page, at the end of a run, or later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from test_wandb_charts import png
from test_wandb_tracker import CONFIG, ROW, summary, tracker
from wandb_server import WandbServer

from dlrun.cli import dispatch, main
from dlrun.errors import UserError
from dlrun.tracking.wandb import pages, session
from dlrun.tracking.wandb.afterwards import tell

HTML = "<!doctype html><html><head><title>run</title></head><body>ñ</body></html>"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(session, "PATIENCE", 10.0)
    yield
    wandb.teardown()


def test_the_report_is_an_artifact_and_a_page(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(folder: Path) -> Path:
        (folder / "report.html").write_text(HTML, encoding="utf-8")
        return folder / "report.html"

    for name, asked, largest in (("asked", True, 10**6), ("large", True, 10), ("not", False, 10**6)):
        monkeypatch.setattr(pages, "LARGEST_PAGE", largest)
        (tmp_path / name).mkdir()
        run = tracker(tmp_path / name, name, log_report=asked, report=report)
        run.epoch(ROW)
        run.finish(summary(0))
        wandb.teardown()
        told = server.runs[name]
        artifacts = {path: content for path, content in told.files.items() if path.endswith("report.html")}
        assert artifacts == ({f"artifacts/report-{name}/report.html": HTML.encode()} if asked else {})
        shown = [content for path, content in told.files.items() if path.startswith("media/html/")]
        assert shown == ([HTML.encode()] if name == "asked" else []), "as it is: nothing is injected"
        assert told.exit_code == 0


def test_a_report_that_cannot_be_made_is_a_line(
    tmp_path: Path, server: WandbServer, caplog: pytest.LogCaptureFixture
) -> None:
    def report(folder: Path) -> Path:
        raise ZeroDivisionError("no")

    run = tracker(tmp_path, "mine", log_report=True, report=report)
    run.finish(summary(0))
    assert "W&B gets no report of the run: ZeroDivisionError: no" in caplog.text
    assert (server.runs["mine"].exit_code, server.runs["mine"].summary["best/val/acc"]) == (0, 0.75)


def test_later_commands_may_tell_of_pictures_and_a_report(tmp_path: Path, server: WandbServer) -> None:
    run = tracker(tmp_path, "mine")
    run.epoch(ROW)
    run.finish(summary(0))
    wandb.teardown()
    picture = png(tmp_path / "bench" / "bench.png")
    (tmp_path / "report.html").write_text(HTML, encoding="utf-8")
    options: dict[str, Any] = {"step": 20, "exit_code": 0, "project": "dlrun", "entity": None, "mode": "online"}
    tell(tmp_path, "mine", CONFIG, {"x": 1.0}, None, [picture], tmp_path / "report.html", init_timeout=20.0, **options)
    wandb.teardown()
    told = server.runs["mine"]
    assert told.files[told.history[-1]["plots/bench"]["path"]] == picture.read_bytes()
    assert told.files["artifacts/report-mine/report.html"] == HTML.encode()
    assert told.files[told.history[-1]["report"]["path"]] == HTML.encode()


def test_dlrun_report_logs_its_page_by_option(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "untold"):
        words = ["model=mlp", "data=digits", "data.limit=100", "trainer.max_steps=2", f"hydra.run.dir={name}"]
        words += ["tracking=none" if name == "untold" else "tracking.wandb.mode=online"]
        monkeypatch.setattr("sys.argv", ["dlrun", *words, "trainer.enable_progress_bar=false"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    assert dispatch(["report", "run=mine", "out=mine.html", "log=true"]) == 0
    wandb.teardown()
    (told,) = server.runs.values()
    assert told.files[f"artifacts/report-{told.id}/report.html"] == Path("mine.html").read_bytes()
    assert told.files[told.history[-1]["report"]["path"]] == Path("mine.html").read_bytes()
    assert told.history[-1]["checkpoint_step"] == 2
    with pytest.raises(UserError, match="log: untold isn't in W&B"):
        dispatch(["report", "run=untold", "log=true"])
    summary_file = Path("mine/summary.json")
    summary_file.write_text(summary_file.read_text().replace('"finished"', '"running"'))
    with pytest.raises(UserError, match="log: the run goes on"):
        dispatch(["report", "run=mine", "log=true"])
