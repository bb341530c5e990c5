"""A recipe of the winner is the winner's config, as Hydra itself composes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_sweeps import came_to_files, grid, make, scored

from dlrun.compose import compose, parse_arguments, plain
from dlrun.errors import UserError
from dlrun.sweep.answers.best import best
from dlrun.sweep.composition import Composer
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.freezing import freeze
from dlrun.sweep.verbs import run as sweep_command

NAMING = {"subdir": "${hydra.job.num}", "override_dirname": {"kv_sep": "=", "item_sep": ",", "exclude_keys": []}}


def frozen(
    path: Path, jobs: Sequence[Sequence[str]], swept: Sequence[str], flags: Sequence[str] = (), more: Sequence[str] = ()
) -> SweepFolder:
    """A sweep of really composed jobs, of which the last one is the best."""
    path.mkdir(parents=True)
    folder, args = SweepFolder(path), parse_arguments(["-m", *flags])
    given = {name: getattr(args, name) for name in ("config_dir", "config_name", "config_path")}
    facts: dict[str, Any] = {"kind": "grid", "command": ["dlrun", "-m"], "flags": given, "swept": swept}
    facts["words"] = ["hydra/launcher=local", "hydra.launcher.jobs=2", "experiment=from_some_other_folder", *more]
    folder.begin(facts | {"monitor": "val/acc", "mode": "max", "status": "finished"})
    composer = Composer(args)
    made = [freeze(composer, words, number, swept, NAMING) for number, words in enumerate(jobs)]
    folder.append(made)
    for job in made:
        came_to_files(folder.run(job), job, scored(0.5 + job.number / 100))
    return folder


def beside(config: dict[str, Any], *more: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("tags", "tracking", *more)}


@pytest.mark.parametrize(
    "words",
    [
        ["model=mlp", "model.hidden_sizes=[64,32]", "optimizer=sgd", "optimizer.lr=0.05"],
        ["data=cifar10", "augment=none", "model=lstm"],
        ["data=cifar10", "optimizer.weight_decay=1e-5"],
        ["experiment=digits_cnn", "model.dropout=0.1", "trainer.patience=3"],
        ["debug=fast", "data=pydocs", "model=transformer", "scheduler=none", "notes='a: b # ünï'"],
        ["+trainer.freeze.head=3", "augment.transforms=[]", "tags=[mine]", "optimizer.lr=${data.batch_size}"],
    ],
    ids=lambda words: words[0],
)
def test_the_recipe_composes_to_the_winners_config(words: list[str], tmp_path: Path) -> None:
    folder = frozen(
        tmp_path / "s", [["model=cnn", "seed=4"], [*words, "seed=5"], [*words, "seed=6"]], ["model", "seed"]
    )
    file = tmp_path / "mine" / "experiment" / "sub" / "winner.yaml"
    best(folder.path, copy_to=file)
    winner = folder.read_jobs()[2].config
    args = parse_arguments(["experiment=sub/winner", f"--config-dir={tmp_path / 'mine'}"])
    composed = plain(compose(args))
    assert composed["seed"] == 0, "which was swept over"
    assert beside(composed, "seed") == beside(winner, "seed")
    assert "tags" not in file.read_text()


def test_a_seed_that_was_not_swept_is_said(tmp_path: Path) -> None:
    folder = frozen(tmp_path / "s", [["seed=7", "model=cnn"], ["seed=7", "model=mlp"]], ["model"])
    best(folder.path, copy_to=tmp_path / "experiment" / "x.yaml")
    args = parse_arguments(["experiment=x", f"--config-dir={tmp_path}"])
    assert beside(plain(compose(args))) == beside(folder.read_jobs()[1].config)


def test_a_users_own_configs_are_found_again(tmp_path: Path) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "small.yaml").write_text("name: mlp\nhidden_sizes: [8]\n")
    folder = frozen(tmp_path / "s", [["model=small"]], ["model"], ["--config-dir", str(tmp_path / "own")])
    best(folder.path, copy_to=tmp_path / "own" / "experiment" / "x.yaml")
    args = parse_arguments(["experiment=x", f"--config-dir={tmp_path / 'own'}"])
    assert plain(compose(args))["model"] == {"name": "mlp", "hidden_sizes": [8]}


def test_and_so_are_those_of_a_search_path(tmp_path: Path) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "small.yaml").write_text("name: mlp\nhidden_sizes: [8]\n")
    flag = f"hydra.searchpath=[file://{tmp_path / 'own'}]"
    config, choices = Composer(parse_arguments(["-m", flag])).compose(["model=small"])
    folder = frozen(tmp_path / "t", [["model=mlp"]], ["model"], more=[flag])
    (job,) = folder.read_jobs()
    folder.jobs.unlink()
    folder.append([replace(job, config=config, choices=choices)])
    best(folder.path, copy_to=tmp_path / "experiment" / "x.yaml")
    args = parse_arguments(["experiment=x", f"--config-dir={tmp_path}", flag])
    assert plain(compose(args))["model"] == {"name": "mlp", "hidden_sizes": [8]}


def test_what_a_recipe_cannot_say_is_refused(tmp_path: Path) -> None:
    folder = frozen(tmp_path / "s", [["~augment.mixup"]], [])
    with pytest.raises(UserError, match=r"copy_to: a recipe can't say this config: it would differ in augment\.mixup"):
        best(folder.path, copy_to=tmp_path / "experiment" / "x.yaml")
    assert not (tmp_path / "experiment").exists()


def test_files_that_are_there_and_names_that_are_none(tmp_path: Path) -> None:
    folder = frozen(tmp_path / "s", [["model=mlp"]], ["model"])
    file = tmp_path / "x.yaml"
    file.write_text("precious")
    with pytest.raises(UserError, match=r"copy_to: .*x\.yaml is there already; force=true replaces it"):
        sweep_command(["best", f"run={folder.path}", f"copy_to={file}"])
    assert file.read_text() == "precious"
    assert sweep_command(["best", f"run={folder.path}", f"copy_to={file}", "force=true"]) == 0
    assert "override /model: mlp" in file.read_text()
    with pytest.raises(UserError, match=r"copy_to: expected a file that ends in \.yaml, got 'x\.txt'"):
        sweep_command(["best", f"run={folder.path}", "copy_to=x.txt"])
    with pytest.raises(UserError, match=r"unknown option of sweep best; did you mean 'copy_to'"):
        sweep_command(["best", f"run={folder.path}", "copyto=x.yaml"])


def test_the_winner_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = grid(model=["mlp", "cnn"], seed=[0, 1, 2])
    folder = make(tmp_path / "s", jobs, lambda v, i: scored([0.1, 0.2, 0.3, 0.8, 0.95, 0.9][i]))
    assert sweep_command(["best", f"run={folder.path}"]) == 0
    said = capsys.readouterr().out
    assert "model=cnn\n  val/acc 0.8833 ± 0.0764 over 3 seeds (95 % of the mean: 0.6936 to 1.0731)" in said
    assert said.rstrip().endswith("s/4")
    assert "best seed 1, 0.9500" in said
    assert sweep_command(["best", f"run={folder.path}", "job=0"]) == 0
    assert "model=mlp\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="job: the sweep has no job 9"):
        best(folder.path, job=9)


def test_ties_and_sweeps_without_a_winner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best(make(tmp_path / "tie", grid(model=["a", "b"]), lambda v, i: scored(0.5)).path)
    assert "as good: model=b" in capsys.readouterr().out
    none = make(tmp_path / "none", grid(model=["a"], seed=[0, 1]), lambda v, i: None if i else scored(0.5))
    with pytest.raises(UserError, match=r"no configuration of .* has all of its seeds done"):
        best(none.path)
    study = {"objectives": ["val/acc", "seconds"], "directions": ["maximize", "minimize"]}
    jobs = [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}]
    two = make(tmp_path / "two", jobs, lambda v, i: scored(0.5 + i / 10, seconds=1.0 + i), kind="search", study=study)
    with pytest.raises(UserError, match=r"copy_to: several objectives have no one winner; say which: job=N \(1, 0\)"):
        best(two.path, copy_to=tmp_path / "x.yaml")
