"""What a search can't be given: one line, before anything is written."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import optuna
import pytest
from command_line import CommandLine
from searches import begin

from dlrun.errors import UserError
from dlrun.passwords import masked
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.search.pruners import PRUNERS, build_pruner, check_pruner
from dlrun.sweep.search.reaching import keep_storage, storage_of
from dlrun.sweep.search.samplers import SAMPLERS, build_sampler, check_sampler
from dlrun.sweep.search.space import read_space
from dlrun.sweep.search.starting import _without_passwords
from dlrun.sweep.search.storage import absolute, open_storage

BASE = ("-m", "tracking=none", "model=mlp", "hydra/sweeper=optuna", "sweep.check=config")
SPACE = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("hydra.sweeper.sampler=tp",), "hydra.sweeper.sampler: unknown sampler 'tp'; did you mean 'tpe'?"),
        (("hydra.sweeper.sampler={name:tpe,multivariat:true}",), "multivariat: unknown option; did you mean 'multivar"),
        (
            ("hydra.sweeper.sampler={name:tpe,n_startup_trials:x}",),
            "n_startup_trials: expected a whole number, got 'x'",
        ),
        (("hydra.sweeper.sampler={name:nsgaii,population_size:1}",), "hydra.sweeper.sampler: `population_size` must"),
        (("hydra.sweeper.sampler=cmaes",), "cmaes adapts two or more numbers that always apply, got 1"),
        (("hydra.sweeper.sampler=grid",), "grid needs optimizer.lr as range(a,b,step) or choice(…)"),
        (("hydra.sweeper.sampler=grid", "optimizer.lr=1e-3,1e-2", "seed=int(interval(0,4e9))"), "places here"),
        (("hydra.sweeper.sampler={name:[1]}",), "unknown sampler '[1]'"),
        (("hydra.sweeper.pruner=medain",), "unknown pruner 'medain'; did you mean 'median'?"),
        (
            ("hydra.sweeper.pruner={name:asha,reduction_factor:1}",),
            "hydra.sweeper.pruner: The value of `reduction_factor`",
        ),
        (("hydra.sweeper.pruner=threshold",), "hydra.sweeper.pruner: "),
        (("hydra.sweeper.pruner=patient",), "pruner: patient needs patience, too: {name: patient, patience: …}"),
        (("hydra.sweeper.objective=val/accu",), "objective: unknown metric 'val/accu'; did you mean 'val/acc'?"),
        (("hydra.sweeper.objective=test/acc",), "the best by test/acc would be the best by luck; expected val/acc"),
        (
            ("hydra.sweeper.direction=minimize",),
            "direction: expected 'maximize' or null, since that is the better val/",
        ),
        (("hydra.sweeper.direction=up",), "hydra.sweeper.direction: expected"),
        (
            ("hydra.sweeper.objective=[val/acc,parameters]", "hydra.sweeper.pruner=median"),
            "median looks at one objective",
        ),
        (("hydra.sweeper.objective=[val/acc,seconds]", "hydra.sweeper.direction=[maximize]"), "null or a list of 2"),
        (("hydra.sweeper.objective=seconds", "hydra.sweeper.pruner=median"), "median needs a metric of each epoch"),
        (("hydra.sweeper.n_trials=0",), "hydra.sweeper.n_trials: expected"),
        (("hydra.sweeper.n_jobs=3",), "3 trials at a time, but the launcher runs 1; say hydra.launcher.jobs=3"),
        (("hydra.sweeper.storage=/nowhere/x",), "hydra.sweeper.storage: no folder /nowhere"),
        (("hydra.sweeper.storage='sqlite:////nowhere/x.db'",), "hydra.sweeper.storage: sqlite:////nowhere/x.db can't"),
        (("hydra.sweeper.storage='redis://a:6379'",), "expected a file, or an address that begins with sqlite:///"),
        (("model=mlp,cnn", "model.hidden_sizes=[64],[32]"), "unknown option"),
        (("model.dropout=0,nan",), "model.dropout: expected values that can be told apart, and nan is no number"),
        (("notes=a,b",), "notes: choice(a,b) changes nothing in any run"),
        (
            ("optimizer.lr=interval(-1,1)", "sweep.check=build"),
            "optimizer.lr: expected a number > 0, got -1.0 (with optimizer.lr=-1.0",
        ),
    ],
)
def test_bad_words_are_one_line_and_leave_nothing(dlrun: CommandLine, words: tuple[str, ...], said: str) -> None:
    keys = {word.partition("=")[0] for word in words}
    given = [word for word in (*BASE, SPACE) if word.partition("=")[0] not in keys]
    result = (
        dlrun(*given, *words, "hydra.sweeper.n_trials=1")
        if "hydra.sweeper.n_trials" not in keys
        else dlrun(*given, *words)
    )
    assert result.code == 2, result.out
    assert said in result.err
    assert result.err.count("\n") == 1
    assert not (dlrun.folder / "multirun").exists()


def test_a_name_stands_for_optunas_own_class() -> None:
    space = read_space(["a=1,2", "b=range(1,4)", "c=range(0.1,0.5,0.1)"], {}, {})
    assert len(SAMPLERS) == 8
    for name, cls in SAMPLERS.items():
        checked, options = check_sampler({"name": name}, space, 1)
        assert type(build_sampler(checked, options, space, 0)(0)) is getattr(optuna.samplers, cls)
    given = {"percentile": {"percentile": 25.0}, "patient": {"patience": 2}, "threshold": {"lower": 0.1}}
    assert len(PRUNERS) == 6
    for name, cls in PRUNERS.items():
        pruner = build_pruner(check_pruner({"name": name, **given.get(name, {})}, 9, 1))
        assert type(pruner) is getattr(optuna.pruners, cls)
    nested = check_pruner({"name": "patient", "patience": 2, "wrapped_pruner": "hyperband"}, 9, 1)
    assert nested is not None
    assert nested["wrapped_pruner"]["max_resource"] == 9
    assert check_pruner(None, 9, 1) is None


def test_a_server_that_cannot_be_reached_is_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drivers of PostgreSQL and MySQL aren't among what the tests install: an empty module stands for one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        for where, driver in (("postgresql+psycopg2", "psycopg2"), ("mysql+pymysql", "pymysql")):
            url = absolute(f"{where}://me:pass%40word@127.0.0.1:{port}/db")
            monkeypatch.setitem(sys.modules, driver, None)
            with pytest.raises(UserError) as error:
                open_storage(url)
            assert f"needs {driver}: pip install {driver}" in str(error.value)
            assert "word" not in str(error.value)
            module = type(sys)(driver)
            module.paramstyle, module.__version__ = "pyformat", "2.9.9"  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, driver, module)
            with pytest.raises(UserError, match=r"can't be used: .*refused") as error:
                open_storage(url)
            assert "pass" not in str(error.value).partition("can't")[2]
            assert f"{where}://me:***@127.0.0.1:{port}/db" in str(error.value)


def test_what_a_storage_is_called() -> None:
    assert absolute("a.journal") == str(Path.cwd() / "a.journal")
    assert absolute("sqlite:///a.db") == f"sqlite:///{Path.cwd()}/a.db"
    assert masked("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert masked("postgresql://me@host/db") == "postgresql://me@host/db"
    assert masked("postgresql://host/db?password=secret&user=me") == "postgresql://host/db?password=***&user=me"
    for wrong in ("sqlite://", "sqlite:///:memory:", "ftp://a/b"):
        with pytest.raises(UserError, match=r"hydra\.sweeper\.storage: expected"):
            absolute(wrong)


def test_a_password_is_in_no_file_but_one_of_its_own(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    url = "postgresql://me:s3cret@host/db"
    assert keep_storage(folder, url) == "postgresql://me:***@host/db"
    assert storage_of(folder) == url
    assert (tmp_path / "storage.url").stat().st_mode & 0o777 == 0o600
    facts = {"words": [f"hydra.sweeper.storage='{url}'"], "sweeper": {"storage": url}}
    assert "s3cret" not in str(_without_passwords(facts))


def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path: Path) -> None:
    for content in (b"dear diary", b"dear diary\nand on", b'{"a": 1}\n'):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(UserError, match="isn't a journal of Optuna's"):
            open_storage(str(tmp_path / "x"))
        assert (tmp_path / "x").read_bytes() == content


def test_half_a_line_that_a_power_cut_left_is_cut_off(tmp_path: Path) -> None:
    where = str(tmp_path / "x")
    optuna.create_study(storage=open_storage(where), study_name="a")
    whole = Path(where).read_bytes()
    for half in (whole + b'{"op_code": 4, "wor', whole[:-9]):
        Path(where).write_bytes(half)
        storage = open_storage(where)
        optuna.create_study(storage=storage, study_name="b", load_if_exists=True).ask()
        assert Path(where).read_bytes().endswith(b"\n")


def test_without_optuna_it_is_one_line(dlrun: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = dlrun(*BASE, SPACE)
    said = (2, "dlrun: hydra/sweeper=optuna needs optuna: pip install 'dlrun[optuna]'\n")
    assert (result.code, result.err) == said
    monkeypatch.undo()
    monkeypatch.chdir(dlrun.folder)
    begin(Path("s"), SPACE)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "dlrun.sweep.search.samplers")
    result = dlrun("sweep", "resume", "run=s", "hydra.sweeper.n_trials=3")
    assert (result.code, result.err) == said
