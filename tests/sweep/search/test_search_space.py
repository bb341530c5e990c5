"""Hydra's words as a search space."""

from __future__ import annotations

import math

import optuna
import pytest

from dlrun.compose import parse_overrides
from dlrun.errors import UserError
from dlrun.sweep.search.space import read_space


def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def test_every_word_draws_what_it_says() -> None:
    space = read_space(
        [
            "lr=tag(log,interval(1e-5,1e-1))",
            "decay=interval(0,0.5)",
            "layers=int(interval(1,4))",
            "width=tag(log,int(interval(8,512)))",
            "heads=range(2,9,2)",
            "dropout=range(0.1,0.5,0.1)",
            "sizes=[64],[64,32]",
            "name=choice(a,'b c')",
            "flag=true,false",
            "+added=1,2.5",
            "fixed=3",
        ],
        {},
        {},
    )
    trials = study()
    drawn = [space.suggest(trials.ask()) for _ in range(300)]
    assert space.fixed == ("fixed=3",)
    assert all(1e-5 <= given["lr"] <= 1e-1 for given in drawn)
    middle = sorted(math.log10(given["lr"]) for given in drawn)[150]
    assert abs(middle + 3) < 0.4  # uniform in the logarithm
    assert {given["layers"] for given in drawn} == {1, 2, 3, 4}
    assert {given["heads"] for given in drawn} == set(range(2, 9, 2))
    hydras = list(parse_overrides(["x=range(0.1,0.5,0.1)"])[0].sweep_iterator())
    assert sorted({given["dropout"] for given in drawn}) == hydras
    for given in drawn[:20]:
        words = dict(word.split("=", 1) for word in space.words(given))
        read = {override.key_or_group: override.value() for override in parse_overrides(space.words(given))}
        assert read["lr"] == given["lr"]
        assert read["width"] == given["width"]
        assert read["dropout"] == given["dropout"]
        assert read["sizes"] in ([64], [64, 32])
        assert read["name"] in ("a", "b c")
        assert isinstance(read["flag"], bool)
        assert words["fixed"] == "3"
        assert "+added" in words


def test_the_command_line_comes_before_the_yaml() -> None:
    params = {"lr": "interval(0,1)", "model": "mlp,cnn", "seed": 3, "bias": True}
    space = read_space(["lr=tag(log,interval(1,2))", "model=mlp"], params, {})
    assert space.describe() == {"lr": "tag(log,interval(1.0,2.0))"}
    assert set(space.fixed) == {"model=mlp", "seed=3", "bias=true"}


def test_conditions_are_drawn_only_where_they_hold() -> None:
    params = {
        "depth": "int(interval(1,3))",  # before its parent, on purpose
        "model": "mlp,cnn,lstm",
        "second": "interval(0,1)",
        "kernel": "3,5",
    }
    when = {"depth": "model=mlp,lstm", "second": ["model=mlp", "depth=2,3"], "kernel": "model=cnn"}
    space = read_space([], params, when)
    trials = study()
    seen = set()
    for _ in range(200):
        given = space.suggest(trials.ask())
        assert ("depth" in given) == (given["model"] in ("mlp", "lstm"))
        assert ("second" in given) == (given["model"] == "mlp" and given["depth"] >= 2)
        assert ("kernel" in given) == (given["model"] == "cnn")
        seen.add(tuple(given))
    assert len(seen) == 3
    combinations = space.combinations({"model"})
    assert [given["model"] for given in combinations] == ["mlp", "cnn", "lstm"]
    probes = space.probes({"model": "mlp"})
    assert {given["second"] for given in probes["second"]} == {0.0, 1.0}
    assert {given["depth"] for given in probes["depth"]} == {1, 3}
    assert "kernel" not in probes


def test_every_combination_of_groups_that_can_occur_is_known() -> None:
    params = {"big": "true,false", "model": "mlp,cnn,lstm", "optimizer": "sgd,adam", "augment": "none,light"}
    when = {"optimizer": "model=mlp,cnn", "augment": "big=true"}
    space = read_space([], params, when)
    trials, groups = study(), ("model", "optimizer", "augment")
    drawn = [space.suggest(trials.ask()) for _ in range(400)]
    occur = {tuple(given.get(name) for name in groups) for given in drawn}
    known = {
        tuple(given.get(name) for name in groups)
        for combination in space.combinations(set(groups))
        for places in space.probes(combination).values()
        for given in places
    }
    assert known == occur
    assert len(occur) == (2 * 2 + 1) * 3


def test_a_word_that_settles_a_condition_leaves_the_rest() -> None:
    params, when = (
        {"model": "mlp,cnn", "a": "1,2", "b": "1,2", "c": "1,2"},
        {"a": "model=mlp", "b": "model=cnn", "c": "b=1"},
    )
    space = read_space(["model=mlp"], params, when)
    assert list(space.describe().items()) == [("a", "choice(1,2)")]
    assert [parameter.name for parameter in space.left_out] == ["b", "c"]


@pytest.mark.parametrize(
    ("words", "params", "when", "said"),
    [
        (["x=interval(2,1)"], {}, {}, "x: expected the lower end of an interval first"),
        (["x=interval(1,1)"], {}, {}, "x: expected an interval with something in it"),
        (["x=int(interval(1.2,1.4))"], {}, {}, "x: expected an interval with something in it"),
        (["x=tag(log,interval(0,1))"], {}, {}, "x: expected a lower end > 0 on a log scale"),
        (["x=tag(lgo,interval(1,2))"], {}, {}, "x: unknown tag 'lgo'; did you mean 'log'?"),
        (["x=interval(0,inf)"], {}, {}, "x: expected an interval between two finite numbers"),
        (["x=range(1,5,0)"], {}, {}, "x: expected a range with a step other than 0"),
        (["x=range(5,1)"], {}, {}, "x: expected a range with something in it"),
        (["x=tag(log,range(1,5))"], {}, {}, "x: expected an interval on a log scale"),
        (["x=range(0,1e9)"], {}, {}, "x: expected at most 1,000,000 steps"),
        (["x=choice(1)"], {}, {}, "x: expected several values"),
        (["x=a,b,a"], {}, {}, "x: expected each value once"),
        (["x=shuffle(1,2)"], {}, {}, "x: a search draws by itself"),
        (["model=glob(*)"], {}, {}, "model: a search can't do with glob(*)"),
        (["x=1"], {}, {}, "nothing to search"),
        ([], {}, {}, "nothing to search"),
        (["x=1,2", "x=3,4"], {}, {}, "x: is said twice"),
        ([], {"x": [1, 2]}, {}, "hydra.sweeper.params: x: expected a text"),
        (["x=1,2"], {}, {"y": "x=1"}, "hydra.sweeper.when: 'y' isn't searched"),
        (["x=1,2"], {}, {"x": "z=1"}, "x depends on 'z', which isn't searched"),
        (["x=1,2", "y=1,2"], {}, {"y": "x=3"}, "hydra.sweeper.when: y: x: there is no choice '3'"),
        (["x=1,2", "y=1,2"], {}, {"y": "x"}, "hydra.sweeper.when: y: expected KEY=VALUE"),
        (["x=interval(0,1)", "y=1,2"], {}, {"y": "x=0.5"}, "nothing can depend on a number in an interval"),
        (["x=range(1,4)", "y=1,2"], {}, {"y": "x=4"}, "expected a number of range(1,4,1), got 4"),
        (["x=1,2", "y=1,2"], {}, {"y": "x=1", "x": "y=1"}, "x, y depend on each other in a circle"),
        ([], {"m": "a", "x": "1,2"}, {"x": "m=b"}, "x is for m=b, but m is fixed to a"),
    ],
)
def test_what_cannot_be_searched_is_one_line(words: list[str], params: dict, when: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        read_space(words, params, when)
    assert said in str(error.value)
