"""Reports and workspaces for W&B: built by its own package, sent to a server on loopback, written and sent later."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
import yaml
from wandb_server import API_KEY, WandbServer
from wandb_workspaces.reports.v2.internal import Spec
from wandb_workspaces.workspaces.internal import WorkspaceViewspec

from dlrun.cli import dispatch
from dlrun.errors import UserError
from dlrun.wandb_report import sending
from dlrun.wandb_report.subject import differing, of_runs, of_sweep

CONFIG: dict[str, Any] = {
    "seed": 0,
    "model": {"name": "cnn", "channels": [8]},
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "trainer": {"monitor": "val/acc", "mode": None, "num_threads": 2},
    "tracking": {"wandb": {"project": "pets", "entity": None}},
}


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)
    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        yield server
        wandb.teardown()


def made(folder: Path, run_id: str, metrics: tuple[str, ...] = ("loss", "acc"), **changes: Any) -> Path:
    """The folder of a run, with what a report reads of it; `changes` by a group's name."""
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"run_id": run_id, "status": "finished"}))
    config = {key: changes.get(key, value) for key, value in CONFIG.items()}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with (folder / "metrics.csv").open("w", newline="") as file:
        names = [f"{split}/{metric}" for split in ("train", "val") for metric in metrics]
        csv.writer(file).writerows([["epoch", "step", *names], [1, 10, *[0.5] * len(names)]])
    return folder


def two(folder: Path) -> list[Path]:
    return [
        made(folder / name, name, seed=seed, optimizer={"name": "adamw", "lr": lr})
        for seed, (name, lr) in enumerate({"a": 1e-3, "b": 3e-3}.items())
    ]


def written(*words: str) -> dict[str, Any]:
    assert dispatch(["wandb-report", *words, "out=definition.json"]) == 0
    return json.loads(Path("definition.json").read_text())


def report_of(content: dict[str, Any]) -> list[Any]:
    """The blocks as objects of the package's own."""
    spec = Spec.model_validate(content["spec"])
    facts = wr.interface.internal.ReportViewspec(display_name="x", project={"name": "p", "entity_name": "e"}, spec=spec)
    return wr.Report._from_model(facts).blocks


def panels_of(content: dict[str, Any]) -> dict[str, list[Any]]:
    blocks = report_of(content)
    headings = [block.text for block in blocks if isinstance(block, wr.H2)]
    grids = [block for block in blocks if isinstance(block, wr.PanelGrid)]
    return {heading: grid.panels for heading, grid in zip(headings, grids, strict=True)}


def test_a_report_on_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "mine", "ab12cd34", ("loss", "acc", "top5"))
    content = written("run=mine", "title=Pets & <b>co</b> 猫")
    assert (
        "written definition.json\nto send it: dlrun wandb-report definition=definition.json" in capsys.readouterr().out
    )
    assert (content["kind"], content["project"], content["entity"]) == ("report", "pets", None)
    assert content["title"] == "Pets & <b>co</b> 猫"
    panels = panels_of(content)
    assert list(panels) == ["Curves", "Results", "Answers on the test split", "Pictures"], "nothing to compare"
    curves = {panel.title: [y.name for y in panel.y] for panel in panels["Curves"]}
    assert curves["loss (train and val)"] == ["train/loss", "val/loss"]
    assert curves["top-5 accuracy (train and val)"] == ["train/top5", "val/top5"]
    assert all(panel.title_x and panel.title_y for panel in panels["Curves"]), "axes have names"
    assert [panel.metric.name for panel in panels["Results"]][:3] == ["best/val/acc", "test/loss", "test/acc"]
    assert panels["Pictures"][0].media_keys == [
        f"plots/{n}" for n in ("curves", "confusion", "calibration", "mistakes")
    ]
    for grid in (block for block in report_of(content) if isinstance(block, wr.PanelGrid)):
        assert grid.runsets[0].filters == "Metric(\"ID\") in ['ab12cd34']"
        assert grid.runsets[0].pinned_columns[:2] == ["run:displayName", "summary:best/val/acc"]


def test_charts_look_into_the_tables_that_a_run_logs(tmp_path: Path) -> None:
    """The same key, kind and fields as in what `wandb.plot` makes of them."""
    import numpy as np

    from dlrun.tracking import Predictions
    from dlrun.tracking.wandb.charts import charts

    half = np.full((4, 2), 0.5, np.float32)
    logged = charts(Predictions(["a", "b"], [0, 1, 0, 1], [0, 1, 1, 0], [], "test", half, str))
    content = written(f"run={made(tmp_path / 'mine', 'x')}")
    shown = [panel for panel in panels_of(content)["Answers on the test split"] if isinstance(panel, wr.CustomChart)]
    assert len(shown) == 4
    for panel in shown:
        key = panel.query["summaryTable"]["tableKey"].removesuffix("_table")
        spec = logged[key].spec
        spec.key = key
        assert (panel.chart_name, panel.chart_fields) == (spec.spec_name, spec.fields)
        assert spec.table_key == f"{key}_table"
        assert panel.chart_strings.keys() <= spec.string_fields.keys()
    tables = [f"test/{name}" for name in ("mistakes", "predictions")]
    text = json.dumps(content)
    assert all(f'\\"{name}\\"' in text or f'"{name}"' in text for name in tables)
    assert set(tables) <= logged.keys()


def test_a_report_on_several_runs_names_what_differs(tmp_path: Path) -> None:
    two(tmp_path / "runs")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "summary.json").write_text("{")
    made(tmp_path / "runs" / "untold", "u", tracking={"wandb": None})
    panels = panels_of(written("runs=runs/*"))
    assert list(panels) == [
        *("Curves", "Results", "What matters", "What it costs"),
        *("Answers on the test split", "Pictures", "Differences"),
    ]
    importance, parallel = panels["What matters"]
    assert importance.with_respect_to == "best/val/acc"
    assert [column.metric.name for column in parallel.columns] == ["optimizer.lr", "best/val/acc"]
    assert parallel.columns[0].log
    costs = [(panel.x.name, panel.y.name) for panel in panels["What it costs"]]
    assert costs == [("seconds", "best/val/acc"), ("parameters", "best/val/acc")]
    assert [[y.name for y in panel.y] for panel in panels["Curves"]][:2] == [["train/loss"], ["val/loss"]]
    places = [(p.layout.x, p.layout.y, p.layout.w, p.layout.h) for p in panels["Curves"]]
    assert len(places) == len(set(places)) == 8
    assert all(x in (0, 12) and y % h == 0 and w == 12 for x, y, w, h in places), "nothing overlaps"


def test_a_sweep_is_its_group(tmp_path: Path) -> None:
    runs = two(tmp_path / "07-38-12")
    (tmp_path / "07-38-12" / "sweep.json").write_text(json.dumps({"swept": ["model", "optimizer.lr", "seed"]}))
    subject = of_sweep(tmp_path / "07-38-12")
    assert (subject.group, subject.run_ids, subject.keys) == ("07-38-12", (), ("model.name", "optimizer.lr"))
    content = written("run=07-38-12", "entity=me")
    assert (content["title"], content["entity"]) == ("sweep 07-38-12", "me")
    grid = next(block for block in report_of(content) if isinstance(block, wr.PanelGrid))
    assert grid.runsets[0].filters == "Metric(\"Group\") == '07-38-12'"
    (tmp_path / "07-38-12" / "sweep.json").write_text("{")
    assert of_sweep(tmp_path / "07-38-12").keys == ("optimizer.lr",), "a damaged one: its runs say it as well"
    assert of_runs(runs).run_ids == ("a", "b")


@pytest.mark.parametrize("kind", ["report", "workspace"])
def test_a_group_may_have_any_name(kind: str) -> None:
    for name in ("lr=1e-3", 'it\'s "one"', "a<b> & c", "back\\slash", "猫 $a_b$", "a and b"):
        spec = written("project=pets", f"group={name}", f"kind={kind}", "title=x")["spec"]
        runsets = [spec["section"]["runSets"]] if kind == "workspace" else _runsets(spec)
        assert runsets
        for (runset,) in runsets:
            (one,) = runset["filters"]["filters"]
            assert (one["key"], one["op"], one["value"]) == ({"section": "run", "name": "group"}, "=", name)


def _runsets(spec: dict[str, Any]) -> list[Any]:
    return [block["metadata"]["runSets"] for block in spec["blocks"] if block["type"] == "panel-grid"]


def test_a_whole_project_has_no_filter() -> None:
    for (runset,) in _runsets(written("project=pets")["spec"]):
        assert runset["filters"] == {"filterFormat": "filterV2", "filters": []}


def test_what_differs_are_keys_that_all_have_and_that_matter() -> None:
    one = {**CONFIG, "plots": True, "trainer": {"num_threads": 1, "profile": False}}
    other = {**CONFIG, "plots": False, "trainer": {"num_threads": 4, "profile": True}, "seed": 1}
    other["model"] = {"name": "mlp", "hidden": 3}
    assert differing([one, other]) == ("model.name",)
    assert differing([CONFIG, CONFIG]) == ()


def test_a_workspace_has_the_same_panels(tmp_path: Path) -> None:
    two(tmp_path / "runs")
    content = written("runs=runs/*", "kind=workspace")
    spec = WorkspaceViewspec.model_validate(content["spec"])
    view = ws.interface.internal.View(entity="e", project="p", display_name="x", name="n", id="i", spec=spec)
    workspace = ws.Workspace._from_model(view)
    shown = {section.name: section.panels for section in workspace.sections}
    as_report = panels_of(written("runs=runs/*"))
    assert {name: [type(p) for p in of] for name, of in shown.items()} == {
        name: [type(p) for p in of] for name, of in as_report.items()
    }
    assert workspace.runset_settings.filters == "Metric(\"ID\") in ['a', 'b']"
    assert (workspace.settings.x_axis, workspace.auto_generate_panels) == ("epoch", False)


@pytest.mark.parametrize("kind", ["report", "workspace"])
def test_it_is_sent_and_its_address_printed(
    kind: str, tmp_path: Path, server: WandbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "mine", "ab12cd34")
    assert dispatch(["wandb-report", "run=mine", f"kind={kind}"]) == 0
    content = written("run=mine", f"kind={kind}")
    assert len(server.views) == 1, "with out=FILE nothing is sent"
    assert dispatch(["wandb-report", "definition=definition.json", "project=other", "entity=team"]) == 0
    first, second = server.views
    assert (first["projectName"], first["entityName"], first["displayName"]) == ("pets", "tester", "run ab12cd34")
    assert (second["projectName"], second["entityName"]) == ("other", "team")
    assert {view["type"] for view in server.views} == {"runs" if kind == "report" else "project-view"}
    assert second["spec"] == content["spec"], "as it was written, to the last key"
    assert server.projects == ["pets", "other"], "made where they weren't there"
    address = {"report": "tester/pets/reports/run-ab12cd34--view1", "workspace": "tester/pets?nw="}[kind]
    assert f"saved {server.url}/{address}" in capsys.readouterr().out


def test_a_server_that_is_not_there_is_one_line(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PATIENCE", 2.0)
    server.turn("refuses")
    with pytest.raises(UserError, match=r"W&B can't be reached \(http://127.0.0.1.*definition=FILE"):
        dispatch(["wandb-report", "project=pets"])


def test_without_an_account_it_says_what_can_be_done() -> None:
    with pytest.raises(UserError, match=r"no credentials here: wandb login first, or out=FILE"):
        dispatch(["wandb-report", "project=pets", "group=09-00-00"])


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        "dlrun.commands.wandb_report.find_spec", lambda name: None if name == "wandb_workspaces" else real(name)
    )
    with pytest.raises(UserError, match=r"pip install 'dlrun\[workspaces\]'"):
        dispatch(["wandb-report", "project=pets", "out=x.json"])
    assert not Path("x.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say of what: run=DIR|last, runs=GLOB, or project=NAME"),
        (["run=a", "runs=b"], "runs: say it or run, not both"),
        (["run=runs/a", "group=x"], "group: goes with project=NAME"),
        (["project=p", "group="], "group: expected a name, got nothing"),
        (["definition=d.json", "title=x"], "title: a definition is sent as it is"),
        (["run=nothing"], "run: no folder 'nothing'"),
        (["runs=nothing/*"], r"runs: no folder matches 'nothing/\*'"),
        (["runs=untold"], "none of these runs is in W&B"),
        (["runs=runs/*,elsewhere"], r"several, \(yours\)/cats, \(yours\)/pets"),
        (["project=p", "kind=page"], "kind: expected"),
        (["project=p", "titel=x"], "titel: unknown option of wandb-report; did you mean 'title'"),
        (["project=p", "title=", "out=x"], "title: expected 1 to 128 characters, got 0"),
        (["project=p", "kind=workspace", "title=😀", "out=x"], "title: W&B refuses '😀'"),
        (["definition=config.yaml"], "definition: config.yaml can't be read"),
        (["definition=other.json"], "definition: other.json isn't by dlrun wandb-report"),
        (["definition=broken.json"], "definition: not one of W&B's reports"),
        (["project=p", "out=nowhere/x.json"], "out: can't write nowhere/x.json"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    two(tmp_path / "runs")
    made(tmp_path / "untold", "u", tracking={"wandb": None})
    made(tmp_path / "elsewhere", "c", tracking={"wandb": {"project": "cats"}})
    Path("config.yaml").write_text("a: 1")
    Path("other.json").write_text("{}")
    broken = {"made_by": "dlrun wandb-report", "format": 1, "kind": "report", "project": "p", "entity": None}
    Path("broken.json").write_text(json.dumps(broken | {"title": "t", "description": "", "spec": {"blocks": 3}}))
    with pytest.raises(UserError, match=said):
        dispatch(["wandb-report", *words])
