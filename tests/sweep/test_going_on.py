"""What a later command may change in a sweep, and what it leaves as it is: of a busy one, and of a stranger's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from subprocess import PIPE, Popen
from typing import Any

import pytest
import yaml
from command_line import CommandLine

from dlrun.sweep.folder import SweepFolder

TINY = ["tracking=none", "data=breast_cancer", "model=perceptron", "augment=none", "trainer.max_epochs=1"]
TINY += ["trainer.enable_progress_bar=false", "hydra/launcher=basic"]  # in this process
HOLD = "import sys; from pathlib import Path; from dlrun.locks import hold; hold(Path('sweep/.lock')); print(); input()"


@pytest.fixture
def sweep(dlrun: CommandLine) -> SweepFolder:
    assert dlrun("-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    return SweepFolder(dlrun.folder / "sweep")


@pytest.fixture
def busy(sweep: SweepFolder) -> Iterator[SweepFolder]:
    """Another process runs it."""
    with Popen([sys.executable, "-c", HOLD], stdin=PIPE, stdout=PIPE, cwd=sweep.path.parent) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield sweep
        process.kill()


def _said(sweep: SweepFolder) -> dict[str, Any]:
    return json.loads(sweep.sweep.read_text())


def test_a_sweep_that_is_run_isnt_changed_by_another_command(dlrun: CommandLine, busy: SweepFolder) -> None:
    before = {path: path.read_bytes() for path in (busy.sweep, busy.jobs, busy.bases)}
    for words in (
        ["sweep", "extend", "run=sweep", "seed=2"],
        ["-m", *TINY, "seed=2", "sweep.extend=sweep"],
        ["sweep", "resume", "run=sweep", "sweep.max_retries=9"],
    ):
        result = dlrun(*words)
        assert (result.code, "run: sweep is being run by process" in result.err) == (2, True), result.err
        assert {path: path.read_bytes() for path in before} == before


def test_words_of_resume_are_all_read_and_wrong_ones_arent_kept(dlrun: CommandLine, sweep: SweepFolder) -> None:
    before = sweep.sweep.read_text()
    for word, said in [
        ("hydra.launcher.jobs=2", "hydra.launcher.jobs: unknown option"),  # of basic
        ("hydra.launcher.ray.init.address=x", "hydra.launcher.ray.init.address: this sweep's launcher has no ray"),
        ("hydra.launcher={jobs:2}", "hydra.launcher: can't change"),
        ("sweep.max_retries=1,2", "'sweep.max_retries=1,2': expected sweep.max_retries=VALUE"),
        ("~sweep.max_retries", "'~sweep.max_retries': expected"),
    ]:
        result = dlrun("sweep", "resume", "run=sweep", word)
        assert (result.code, said in result.err) == (2, True), result.err
        assert sweep.sweep.read_text() == before
    result = dlrun(
        "sweep", "resume", "run=sweep", "hydra/launcher=local", "hydra.launcher.jobs=3", "sweep.max_retries=7"
    )
    assert result.code == 0, result.err
    assert (_said(sweep)["launcher"]["jobs"], _said(sweep)["policy"]["max_retries"]) == (3, 7)


def test_a_search_takes_another_launcher_and_more_trials_at_once(dlrun: CommandLine) -> None:
    words = [*TINY, "hydra/sweeper=optuna", "optimizer.lr=interval(0.01,0.1)", "hydra.sweep.dir=search"]
    assert dlrun("-m", *words, "hydra.sweeper.n_trials=1").code == 0
    result = dlrun("sweep", "resume", "run=search", "hydra/launcher=basic", "hydra.sweeper.n_trials=2")
    assert result.code == 0, result.err
    assert len((dlrun.folder / "search/jobs.jsonl").read_text().splitlines()) == 2


def test_what_new_jobs_differ_in_tells_them_apart(dlrun: CommandLine, sweep: SweepFolder) -> None:
    assert dlrun("sweep", "extend", "run=sweep", "optimizer.lr=0.05").code == 0
    assert _said(sweep)["swept"] == ["seed", "optimizer.lr"]
    assert "Repeated" not in sweep.results_md.read_text()
    assert dlrun("sweep", "extend", "run=sweep", "seed=2").code == 0  # of the grid as it is by now
    assert [job.label for job in sweep.read_jobs()][4:] == ["seed=2 optimizer.lr=0.05"]
    more = ["seed=0", "task.label_smoothing=0.1", "sweep.extend=sweep", "sweep.on_error=stop", "device=cpu"]
    result = dlrun("-m", *TINY, *more)
    assert result.code == 0, result.err
    assert _said(sweep)["swept"] == ["seed", "optimizer.lr", "task.label_smoothing"]
    assert _said(sweep)["policy"]["on_error"] == "stop"
    result = dlrun("-m", *TINY, "seed=0", "sweep.extend=sweep", "hydra.sweep.subdir=x")
    assert (result.code, "hydra.sweep.subdir: new jobs of a sweep" in result.err) == (2, True), result.err


def test_nothing_in_a_strangers_sweep_imports_a_module(dlrun: CommandLine, sweep: SweepFolder) -> None:
    (dlrun.folder / "evil.py").write_text("raise SystemExit('imported')")
    bases = sweep.bases.read_text()
    sweep.bases.write_text(bases.replace('"plugins": []', '"plugins": ["evil"]'))
    more = ["-m", *TINY, "seed=5", "sweep.extend=sweep"]
    for words in (["sweep", "extend", "run=sweep", "seed=5"], more):
        result = dlrun(*words)
        assert (result.code, "say so: plugins=[evil]" in result.err) == (2, True), result.err
    sweep.bases.write_text(bases)

    run = sweep.run(sweep.read_job(0))
    run.update_summary(status="preempted")
    run.config.write_text(yaml.safe_dump(run.read_config() | {"plugins": ["evil"]}))
    for words in (["sweep", "resume", "run=sweep"], more):
        result = dlrun(*words)
        assert (result.code, "say so: plugins=[evil]" in result.err) == (2, True), result.err


def test_nor_tells_it_a_shell_anything(dlrun: CommandLine, sweep: SweepFolder) -> None:
    sweep.update(launcher=_said(sweep)["launcher"] | {"setup": ["touch evil"]})
    for words in (["resume"], ["extend", "seed=2"]):
        result = dlrun("sweep", words[0], "run=sweep", *words[1:])
        assert (result.code, "hydra.launcher.setup: this sweep's own goes to a shell" in result.err) == (2, True)
    assert dlrun("sweep", "resume", "run=sweep", "hydra/launcher=basic").code == 0


def test_nor_does_a_strangers_search(dlrun: CommandLine) -> None:
    words = [*TINY, "hydra/sweeper=optuna", "optimizer.lr=interval(0.01,0.1)", "hydra.sweep.dir=search"]
    assert dlrun("-m", *words, "hydra.sweeper.n_trials=1").code == 0
    bases = dlrun.folder / "search/bases.json"
    bases.write_text(bases.read_text().replace('"plugins": []', '"plugins": ["evil"]'))
    result = dlrun("sweep", "resume", "run=search", "hydra.sweeper.n_trials=2")
    assert (result.code, "say so: plugins=[evil]" in result.err) == (2, True), result.err
