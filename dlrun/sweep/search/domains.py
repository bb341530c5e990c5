"""What one parameter of a search may be: a number in an interval, in steps, or one of several values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from hydra.core.override_parser.types import Override, QuotedString

from dlrun.errors import UserError, choices

MOST = 1_000_000  # steps of a range, and places of a grid


class Domain(Protocol):
    @property
    def ends(self) -> list[Any]:
        """Its first and its last value, or all values of a choice: what is tried before a search begins."""

    @property
    def values(self) -> Sequence[Any] | None:
        """All there are, in order; None if there is no end of them."""

    def suggest(self, trial: Any, name: str) -> Any: ...

    def word(self, value: Any) -> str:
        """How a command line says `value`."""

    def check_condition(self, place: str, values: Sequence[Any]) -> None:
        """Raise UserError unless all `values` can be drawn."""


@dataclass(frozen=True)
class Interval:
    """Every number from `low` to `high`, both included; whole ones if the two are."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def checked(cls, low: Any, high: Any, log: bool) -> Interval:
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("expected an interval between two finite numbers")
        if low > high:
            raise ValueError(f"expected the lower end of an interval first: interval({high:g},{low:g})")
        if low == high:
            raise ValueError("expected an interval with something in it")
        if log and low <= 0:
            raise ValueError("expected a lower end > 0 on a log scale")
        return cls(low, high, log)

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int)

    @property
    def ends(self) -> list[Any]:
        return [self.low, self.high]

    @property
    def values(self) -> Sequence[Any] | None:
        return range(int(self.low), int(self.high) + 1) if self.whole else None

    def suggest(self, trial: Any, name: str) -> Any:
        suggest = trial.suggest_int if self.whole else trial.suggest_float
        return suggest(name, self.low, self.high, log=self.log)

    def word(self, value: Any) -> str:
        return repr(value)

    def check_condition(self, place: str, values: Sequence[Any]) -> None:
        if not self.whole:
            raise UserError(f"{place}: nothing can depend on a number in an interval; use a choice or int(interval(…))")
        for value in values:
            if type(value) is not int or not self.low <= value <= self.high:
                raise UserError(f"{place}: expected a whole number from {self.low} to {self.high}, got {value!r}")

    def __str__(self) -> str:
        text = f"interval({self.low!r},{self.high!r})"
        return f"tag(log,{text})" if self.log else text


@dataclass(frozen=True)
class Steps:
    """`count` numbers from `low` on, `step` apart."""

    low: float
    step: float
    count: int

    @classmethod
    def checked(cls, start: Any, stop: Any, step: Any, log: bool) -> Steps:
        if not all(map(math.isfinite, (start, stop, step))):
            raise ValueError("expected a range between two finite numbers")
        if step == 0:
            raise ValueError("expected a range with a step other than 0")
        if log:
            raise ValueError("expected an interval on a log scale, or a choice; a range has even steps")
        count = math.ceil((Decimal(stop) - Decimal(start)) / Decimal(step))
        if count < 1:
            raise ValueError("expected a range with something in it")
        if count == 1:
            raise ValueError("expected a range with several numbers in it")
        if count > MOST:
            raise ValueError(f"expected at most {MOST:,} steps; an interval has no end of them")
        if step < 0:
            return cls(cls(start, step, count).at(count - 1), -step, count)
        return cls(start, step, count)

    def at(self, place: int) -> Any:
        if isinstance(self.low, int) and isinstance(self.step, int):
            return self.low + place * self.step
        return float(Decimal(self.low) + place * Decimal(self.step))  # as Hydra counts

    @property
    def ends(self) -> list[Any]:
        return [self.at(0), self.at(self.count - 1)]

    @property
    def values(self) -> Sequence[Any] | None:
        return [self.at(place) for place in range(self.count)]

    def suggest(self, trial: Any, name: str) -> Any:
        low, high = self.ends
        suggest = trial.suggest_int if isinstance(low, int) else trial.suggest_float
        return self.at(round((suggest(name, low, high, step=self.step) - low) / self.step))

    def word(self, value: Any) -> str:
        return repr(value)

    def check_condition(self, place: str, values: Sequence[Any]) -> None:
        for value in values:
            if isinstance(value, bool | str) or value not in (self.values or ()):
                raise UserError(f"{place}: expected a number of {self}, got {value!r}")

    def __str__(self) -> str:
        return f"range({self.low!r},{self.low + self.count * self.step!r},{self.step!r})"


@dataclass(frozen=True)
class Choice:
    """One of several values, in no order; a list or a mapping is known by its text."""

    known: tuple[Any, ...]
    texts: tuple[str, ...]  # the same as Hydra writes them

    @classmethod
    def checked(cls, elements: Sequence[Any], log: bool) -> Choice:
        if log:
            raise ValueError("expected an interval on a log scale; a choice has no order")
        texts = tuple(Override._get_value_element_as_str(element) for element in elements)
        if len(set(texts)) < len(texts):
            raise ValueError("expected each value once")
        if any(isinstance(element, float) and math.isnan(element) for element in elements):
            raise ValueError("expected values that can be told apart, and nan is no number; a text is 'nan', in quotes")
        if len(texts) < 2:
            raise ValueError("expected several values")
        return cls(tuple(map(_plain, elements, texts)), texts)

    @property
    def ends(self) -> list[Any]:
        return list(self.known)

    @property
    def values(self) -> Sequence[Any] | None:
        return self.known

    def suggest(self, trial: Any, name: str) -> Any:
        return trial.suggest_categorical(name, self.known)

    def word(self, value: Any) -> str:
        pairs = zip(self.known, self.texts, strict=True)
        return next(text for known, text in pairs if known == value and type(known) is type(value))

    def check_condition(self, place: str, values: Sequence[Any]) -> None:
        for value in values:
            if not any(value == known and type(value) is type(known) for known in self.known):
                raise UserError(f"{place}: there is no choice '{value}'{choices(str(value), map(str, self.known))}")

    def __str__(self) -> str:
        return f"choice({','.join(self.texts)})"


def _plain(element: Any, text: str) -> Any:
    if isinstance(element, QuotedString):
        return element.text
    return element if element is None or isinstance(element, bool | int | float | str) else text
