"""A search comes to its number of trials, the same ones wherever it is killed. No training: see searches.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from processes import Process
from searches import TWO, again, begin, drawn, finish, peak, study_of, train

from dlrun.errors import UserError
from dlrun.locks import release
from dlrun.sweep.answers.status import look, text
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.resuming import resume
from dlrun.sweep.search.study import FOLDER, HOST, OWNER


def states(search: Any) -> list[str]:
    return [trial.state.name for trial in search.study.get_trials(deepcopy=False)]


@pytest.mark.parametrize(
    "sampler",
    [
        "{name:tpe,n_startup_trials:3}",
        "random",
        "cmaes",
        pytest.param("{name:gp,n_startup_trials:3}", marks=pytest.mark.slow),
        pytest.param("{name:nsgaii,population_size:3}", marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_point_it_asks_for_the_same_trials(tmp_path: Path, sampler: str) -> None:
    words = (*TWO, f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.n_trials=9")
    undisturbed = begin(tmp_path / "a", *words)
    assert finish(undisturbed) == 9
    search = begin(tmp_path / "b", *words)
    finish(search, most=6)
    search.next()  # in the manifest, and not begun
    search = again(tmp_path / "b")
    assert (search.done, search.total) == (6, 9)
    job = search.next()
    train(search, job, peak(job.config))  # ended, and not told
    search = again(tmp_path / "b")
    assert (search.done, search.total) == (7, 9)
    mark = {OWNER: search.plan.owner}  # asked for, and nothing drawn
    study = search.study
    made = study._storage.create_new_trial(study._study_id, create_trial(state=TrialState.RUNNING, user_attrs=mark))
    search = again(tmp_path / "b")
    assert [job.trial for job in search.left] == [7]
    finish(search)
    assert made is not None
    assert drawn(search) == drawn(undisturbed)
    assert states(search) == ["COMPLETE"] * 9
    jobs = again(tmp_path / "b").jobs
    assert [job.number for job in jobs] == [job.trial for job in jobs] == list(range(9))
    assert len({job.run_id for job in jobs}) == 9
    assert again(tmp_path / "b").next() is None


def test_what_was_drawn_before_a_kill_is_kept(tmp_path: Path) -> None:
    search = begin(tmp_path / "a", *TWO, "hydra.sweeper.n_trials=3")
    finish(search, most=2)
    study, mark = search.study, {OWNER: search.plan.owner}
    made = study._storage.create_new_trial(study._study_id, create_trial(state=TrialState.RUNNING, user_attrs=mark))
    first = optuna.trial.Trial(study, made).suggest_float("optimizer.lr", 1e-4, 1e-1, log=True)
    search = again(tmp_path / "a")
    assert search.next().config["optimizer"]["lr"] == first


@pytest.mark.slow
def test_tpe_and_cmaes_do_better_than_chance(tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "cmaes", "random"):
        words = (*TWO, f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.n_trials=30")
        search = begin(tmp_path / sampler, *words)
        finish(search)
        best[sampler] = sorted(search.study.get_trials(), key=lambda trial: -trial.value)[4].value  # the fifth best
    assert best["tpe"] > best["random"]
    assert best["cmaes"] > best["random"]


def test_a_failed_or_nan_trial_is_a_failed_trial_and_it_goes_on(tmp_path: Path) -> None:
    search = begin(tmp_path / "a", *TWO, "hydra.sweeper.n_trials=5")
    for number, (state, best) in enumerate(
        [
            ("failed", {}),
            ("done", {}),
            ("done", {"val/acc": None}),
            ("pruned", {"val/acc": 0.1}),
            ("done", {"val/acc": 0.5}),
        ]
    ):
        job = search.next()
        assert job.trial == number
        search.ended(job, state, {"best": best})
    assert states(search) == ["FAIL", "FAIL", "FAIL", "PRUNED", "COMPLETE"]
    assert search.study.best_value == 0.5
    assert search.next() is None


def test_an_interrupted_trial_keeps_its_number_and_its_folder(tmp_path: Path) -> None:
    search = begin(tmp_path / "a", *TWO, "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2", "hydra.launcher.jobs=2")
    one, two = search.next(), search.next()
    assert search.next() is None  # n_jobs
    search.ended(one, "done", {"best": {"val/acc": 0.5}})
    search.ended(two, "interrupted", {})
    search = again(tmp_path / "a")
    assert search.next() == two
    assert states(search) == ["COMPLETE", "RUNNING"]


def test_a_search_that_was_killed_before_its_first_job_is_one(tmp_path: Path) -> None:
    begin(tmp_path / "search", *TWO, "hydra.sweeper.n_trials=3")
    found = look(tmp_path / "search")
    assert (found["total"], found["counts"]["pending"]) == (3, 3)
    assert finish(again(tmp_path / "search")) == 3


def test_a_grid_sampler_visits_each_place_once(tmp_path: Path) -> None:
    words = ("optimizer.lr=1e-3,1e-2", "data.batch_size=range(16,65,16)", "hydra.sweeper.sampler=grid")
    search = begin(tmp_path / "a", *words)
    assert search.total == 8
    finish(search, most=3)
    search = again(tmp_path / "a")
    finish(search)
    assert len({tuple(sorted(params.items())) for _, params in drawn(search)}) == 8 == len(drawn(search))


def test_conditions_and_group_choices_reach_the_jobs(tmp_path: Path) -> None:
    words = ("data=digits", "model=mlp,cnn", "model.dropout=interval(0,0.5)", "model.hidden_size=16,32")
    when = "hydra.sweeper.when={model.hidden_size:'model=cnn'}"
    search = begin(tmp_path / "a", *words, when, "hydra.sweeper.n_trials=12", "hydra.sweeper.sampler=random")
    (tmp_path / "bases").write_text(json.dumps(search.folder.read_bases()))
    finish(search, lambda config: 1.0)
    models = [job.config["model"] for job in search.jobs]
    assert {model["name"] for model in models} == {"mlp", "cnn"}
    assert all(("hidden_size" in model) == (model["name"] == "cnn") for model in models)
    assert all(job.choices["model"] == job.config["model"]["name"] for job in search.jobs)
    assert json.loads((tmp_path / "bases").read_text()) == search.composer.bases  # conf/ wasn't asked again


def search_to_the_end(path: Path, words: tuple[str, ...]) -> None:
    finish(begin(path, *words))


@pytest.mark.parametrize("storage", ["shared.journal", pytest.param("sqlite:///shared.db", marks=pytest.mark.slow)])
def test_two_sweeps_that_share_a_study_make_its_trials_together(tmp_path: Path, storage: str) -> None:
    where = storage.replace("shared", f"{tmp_path}/shared")
    words = (*TWO, f"hydra.sweeper.storage={where}", "hydra.sweeper.study_name=ours", "hydra.sweeper.n_trials=8")
    both = [Process(search_to_the_end, tmp_path / name, words) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0], [process.output for process in both]
    trials = study_of(SweepFolder(tmp_path / "a")).get_trials()
    assert [trial.number for trial in trials] == list(range(8))
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 8
    assert sorted(job.trial for name in "ab" for job in SweepFolder(tmp_path / name).read_jobs()) == list(range(8))
    later = begin(tmp_path / "c", *words[:-1], "hydra.sweeper.n_trials=10")  # by name: what is missing
    assert finish(later) == 2


def test_running_trials_of_others_are_left_alone_and_of_the_dead_taken_over(tmp_path: Path) -> None:
    words = (*TWO, f"hydra.sweeper.storage={tmp_path}/s", "hydra.sweeper.study_name=ours", "hydra.sweeper.n_trials=4")
    one = begin(tmp_path / "a", *words)
    job = one.next()
    study = one.study
    elsewhere = create_trial(
        state=TrialState.RUNNING, user_attrs={OWNER: "x", HOST: "another machine", FOLDER: str(tmp_path)}
    )
    study._storage.create_new_trial(study._study_id, elsewhere)
    release(one.folder.lock)  # the first sweep dies
    two = begin(tmp_path / "b", *words)
    assert [left.trial for left in two.left] == [0]
    assert two.left[0].overrides == job.overrides
    assert finish(two) == 3
    assert states(two) == ["COMPLETE", "RUNNING", "COMPLETE", "COMPLETE"]
    one = again(tmp_path / "a")  # comes back, and has nothing to do
    assert one.next() is None


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    words = (f"hydra.sweeper.storage={tmp_path}/s", "hydra.sweeper.study_name=ours", "hydra.sweeper.n_trials=2")
    finish(begin(tmp_path / "a", *TWO, *words))
    others = {
        ("optimizer.lr=interval(1e-4,1)", TWO[1]): "it searches optimizer.lr in tag(log,interval(0.0001,0.1)), not in "
        "interval(0.0001,1.0)",
        (*TWO, "data.batch_size=16"): "what isn't searched differs",
        (*TWO, "hydra.sweeper.objective=val/loss"): "its objectives are ['val/acc'], not ['val/loss']",
    }
    for space, said in others.items():
        with pytest.raises(UserError) as error:
            begin(tmp_path / "b", *space, *words)
        assert said in str(error.value)
        assert not (tmp_path / "b").exists()
    optuna.create_study(storage=f"sqlite:///{tmp_path}/x.db", study_name="ours").ask()
    with pytest.raises(UserError, match="dlrun didn't make"):
        begin(tmp_path / "b", *TWO, f"hydra.sweeper.storage=sqlite:///{tmp_path}/x.db", *words[1:])


def test_a_search_that_was_killed_before_its_first_trial_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = begin(tmp_path / "a", *TWO, "hydra.sweeper.n_trials=2")
    assert search.folder.read_jobs() == []
    assert (search.done, search.total) == (0, 2)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SweepFolder, "write_bases", killed)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "b", *TWO)
    assert not SweepFolder(tmp_path / "b").sweep.exists(), "what has a sweep.json has all else"


def test_a_mistake_of_ours_is_not_said_to_be_the_storages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = begin(tmp_path / "a", *TWO)
    monkeypatch.setattr(search.composer, "composed", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        search.next()


def test_resumed_after_its_end_it_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = begin(tmp_path / "a", *TWO, "hydra.sweeper.n_trials=1")
    job = search.next()
    train(search, job, None)
    run = search.folder.run(job)
    run.update_summary(status="failed", error="one\ntwo")
    search.ended(job, "failed", run.read_summary())
    release(search.folder.lock)
    assert resume(search.folder, []) == 1, "as the sweep itself did, which had a failed trial"
    said = capsys.readouterr().out
    assert f"more trials: dlrun sweep resume run={tmp_path}/a hydra.sweeper.n_trials=…" in said
    assert "to go on" not in said + text(look(search.folder.path))


def test_a_study_that_is_full_leaves_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*TWO, f"hydra.sweeper.storage={tmp_path}/s", "hydra.sweeper.study_name=ours", "hydra.sweeper.n_trials=2")
    assert finish(begin(tmp_path / "a", *words)) == 2
    folder = begin(tmp_path / "b", *words).folder
    release(folder.lock)
    assert resume(folder, []) == 0
    said = capsys.readouterr()
    assert "0 jobs to run; the study has all of its trials" in said.out
    assert said.err == ""
    found = look(folder.path)
    assert (found["status"], found["total"]) == ("finished", 0), "the others' trials don't come any more"


def test_the_word_for_one_plugin_is_none_for_another(tmp_path: Path) -> None:
    folder = begin(tmp_path / "a", *TWO).folder
    folder.update(words=[*folder.read()["words"], "plugins=[evil]"])  # a stranger's
    for words in ("plugins=[]", "plugins=[mine]"):
        release(folder.lock)
        with pytest.raises(UserError, match=r"if you trust them, say so: plugins=\[evil\]"):
            resume(folder, [words])
        assert folder.read_jobs() == []
