"""A command's own words, and those that are the config's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from dlrun.errors import UserError
from dlrun.options import read, run_named
from dlrun.registry import Count, Share


@dataclass(frozen=True, kw_only=True)
class Options:
    method: Literal["prune", "quantize"]
    amount: Share = 0.3
    batch_sizes: list[Count] | None = None
    names: list[str] | None = None
    half: bool = False
    out: Path | None = None
    note: str = ""


def config_key(key: str) -> bool:
    return key.startswith("data.")


def test_words_become_what_the_fields_say() -> None:
    words = ["method=prune", "amount=1e-1", "batch_sizes=1,8,64", "half=true", "out=~/a=b.csv", "note=1"]
    options, rest = read([*words, "data.root=x"], Options, "try", config_key)
    home = Path("~").expanduser()
    expected = Options(method="prune", amount=0.1, batch_sizes=[1, 8, 64], half=True, out=home / "a=b.csv", note="1")
    assert (options, rest) == (expected, ["data.root=x"])


@pytest.mark.parametrize(("words", "names"), [(["names=a,b"], ["a", "b"]), (["names=[a]", "names=b"], ["a", "b"])])
def test_a_list_is_separated_by_commas_or_said_again(words: list[str], names: list[str]) -> None:
    assert read(["method=prune", *words], Options, "try")[0].names == names


def test_null_is_none() -> None:
    assert read(["method=prune", "out=null"], Options, "try")[0].out is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=prun"], "method: expected one of 'prune', 'quantize', got 'prun'"),
        (["method=prune", "amount=1"], "amount: expected a number > 0 and < 1, got 1"),
        (["method=prune", "amount=abc"], "amount: expected a number > 0 and < 1, got 'abc'"),
        (["method=prune", "batch_sizes=0"], "batch_sizes: expected a list, each a whole number >= 1 or null, got [0]"),
        (["method=prune", "half=maybe"], "half: expected true or false, got 'maybe'"),
        (["method=prune", "amout=1"], "amout: unknown option of try; did you mean 'amount'?"),
        (["method=prune", "model.width=1"], "model.width: unknown option of try"),
        (["method=prune", "method=prune"], "method: is said twice"),
        (["method=prune", "here"], "try: can't read 'here'; expected KEY=VALUE"),
        (["method=prune", "--fast"], "try: can't read '--fast'; expected KEY=VALUE"),
        (["method=prune", "out="], "out: expected a path, got nothing"),
        ([], "method: is missing; see dlrun try --help"),
    ],
)
def test_what_can_not_be_read_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        read(words, Options, "try", config_key)
    assert message in str(error.value)


def test_the_run_is_named_once() -> None:
    assert run_named(["a=1", "run=r"], "try") == ("r", ["a=1"])
    for words in ([], ["run="], ["run=a", "run=b"]):
        with pytest.raises(UserError, match=r"try: say which run: dlrun try run=DIR \(or run=last\)"):
            run_named(words, "try")
