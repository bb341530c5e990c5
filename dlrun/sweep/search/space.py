"""A search space: which keys of the config are searched, between which bounds, and on what they depend.

It is written in Hydra's own words, on the command line or as texts in YAML: `interval(a,b)`, `tag(log, interval(a,b))`,
`int(interval(a,b))`, `range(a,b,step)`, `choice(a,b)`, and `a,b,c`, for values and for config groups. A word with one
value is fixed. Both ends of an interval may be drawn; a range leaves its end out, as it does in a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from dlrun.compose import parse_overrides
from dlrun.errors import UserError, choices
from dlrun.sweep.search.domains import Choice, Domain, Interval, Steps

Values = dict[str, Any]  # key → the value that was drawn
WHEN = "hydra.sweeper.when"
PARAMS = "hydra.sweeper.params"


@dataclass(frozen=True)
class Condition:
    """Holds if `parent` has one of `values`."""

    parent: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.parent}={','.join(map(str, self.values))}"

    def holds(self, given: Mapping[str, Any]) -> bool:
        return self.parent in given and _among(given[self.parent], self.values)


@dataclass(frozen=True)
class Parameter:
    """A key that is searched."""

    key: str  # as it is written: with a + in front where it adds one
    domain: Domain
    when: tuple[Condition, ...] = ()  # all of them have to hold

    @property
    def name(self) -> str:
        return self.key.lstrip("+")

    def is_active(self, given: Mapping[str, Any]) -> bool:
        return all(condition.holds(given) for condition in self.when)

    def __str__(self) -> str:
        return str(self.domain) + "".join(f" when {condition}" for condition in self.when)


@dataclass(frozen=True)
class Space:
    """All that is searched, parents before what depends on them, and what stays fixed."""

    parameters: tuple[Parameter, ...]
    fixed: tuple[str, ...]  # words
    left_out: tuple[Parameter, ...] = ()  # of the YAML: a word of the command line has decided that they never apply

    def __getitem__(self, name: str) -> Parameter:
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def describe(self) -> dict[str, str]:
        """The whole of it in words, by which two spaces are told apart."""
        return {parameter.name: str(parameter) for parameter in self.parameters}

    def suggest(self, trial: Any) -> Values:
        """What the sampler of an Optuna trial says, of the parameters that apply."""
        given: Values = {}
        for parameter in self.parameters:
            if parameter.is_active(given):
                given[parameter.name] = parameter.domain.suggest(trial, parameter.name)
        return given

    def words(self, given: Mapping[str, Any]) -> list[str]:
        """The command line of a job."""
        drawn = [f"{p.key}={p.domain.word(given[p.name])}" for p in self.parameters if p.name in given]
        return [*self.fixed, *drawn]

    def with_values(self, wanted: Mapping[str, Any]) -> Values | None:
        """Values of all that applies with `wanted` among them, the others at their first; None if that can't be."""
        given: Values = {}
        for parameter in self.parameters:
            if parameter.is_active(given):
                given[parameter.name] = wanted.get(parameter.name, parameter.domain.ends[0])
        return given if wanted.items() <= given.items() else None

    def combinations(self, names: set[str]) -> list[Values]:
        """Every combination of the choices `names` that can occur, with what they depend on."""
        found: list[Values] = [{}]
        for parameter in self.parameters:
            if parameter.name in names:
                found = [more for given in found for more in self._with_each(parameter, given)]
        return [given for given in found if self.with_values(given) is not None]

    def _with_each(self, parameter: Parameter, given: Values) -> list[Values]:
        needed = self._needed(parameter, given)
        if not all(condition.holds(needed) for condition in parameter.when):
            return [given]
        without = [] if needed.items() <= given.items() else [given]
        return [given | needed | {parameter.name: value} for value in parameter.domain.ends] + without

    def probes(self, combination: Mapping[str, Any]) -> dict[str, list[Values]]:
        """For each parameter that can apply with `combination`: values with it at its first, its last and, of a
        choice, all its places."""
        found = {}
        for parameter in self.parameters:
            places = [
                self.with_values({**self._needed(parameter, combination), **combination, parameter.name: value})
                for value in parameter.domain.ends
                if combination.get(parameter.name, value) == value
            ]
            if kept := [place for place in places if place is not None]:
                found[parameter.name] = kept
        return found

    def _needed(self, parameter: Parameter, given: Mapping[str, Any]) -> Values:
        """Values of its parents, and of theirs, with which it applies: those of `given`, where it has them."""
        needed: Values = {}
        for condition in parameter.when:
            value = given.get(condition.parent, condition.values[0])
            needed |= self._needed(self[condition.parent], given) | {condition.parent: value}
        return needed


def read_space(words: Sequence[str], params: Mapping[str, Any], when: Mapping[str, Any]) -> Space:
    """The space that the command line's `words` and the YAML's `params` and `when` make; the command line wins.

    Raises UserError for what can't be searched.
    """
    typed = [(override, True) for override in parse_overrides(list(words))]
    said = {_name(override) for override, _ in typed}
    written = [(override, False) for override in parse_overrides(_as_words(params)) if _name(override) not in said]
    domains: dict[str, tuple[str, Domain]] = {}
    fixed: dict[str, tuple[Any, bool]] = {}
    fixed_words = []
    for override, is_typed in [*written, *typed]:
        domain, name = _domain(override), _name(override)
        if domain is None:
            fixed_words.append(str(override.input_line))
            fixed[name] = (override.value(), is_typed)
            domains.pop(name, None)
        elif name in domains or name in fixed:
            raise UserError(f"{name}: is said twice")
        else:
            domains[name] = (override.get_key_element(), domain)
    conditions = _conditions(when, domains, fixed)
    parameters: list[Parameter] = []
    left_out: list[Parameter] = []
    for name, (key, domain) in domains.items():
        parameter = Parameter(key, domain, conditions.get(name, ()))
        (left_out if _never(parameter, fixed) else parameters).append(parameter)
    gone = {parameter.name for parameter in left_out}
    while late := [p for p in parameters if any(condition.parent in gone for condition in p.when)]:
        parameters = [p for p in parameters if p not in late]
        left_out += late
        gone |= {p.name for p in late}
    kept = [
        Parameter(p.key, p.domain, tuple(c for c in p.when if c.parent not in fixed)) for p in parameters
    ]  # what depends on a fixed word is settled
    if not kept:
        raise UserError(
            "hydra/sweeper=optuna has nothing to search; say, for example, 'optimizer.lr=tag(log,interval(1e-4,1e-1))'"
            f", or write it under {PARAMS}"
        )
    return Space(_ordered(kept), tuple(fixed_words), tuple(left_out))


def _as_words(params: Mapping[str, Any]) -> list[str]:
    words = []
    for key, value in params.items():
        if isinstance(value, Mapping | list):
            raise UserError(f"{PARAMS}: {key}: expected a text such as interval(0,1) or choice(a,b), got {value!r}")
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        words.append(f"{key}={text}")
    return words


def _name(override: Override) -> str:
    return override.get_key_element().lstrip("+")


def _domain(override: Override) -> Domain | None:
    """What a word lets a key be; None if it fixes it. Raises UserError."""
    value, name = override.value(), _name(override)
    if override.is_delete() or not override.is_sweep_override():
        return None
    tags: set[str] = getattr(value, "tags", set())
    for tag in tags - {"log"}:
        raise UserError(f"{name}: unknown tag '{tag}'{choices(str(tag), ['log'])}")
    if getattr(value, "shuffle", False):
        raise UserError(f"{name}: a search draws by itself; leave shuffle(…) away")
    try:
        if isinstance(value, IntervalSweep):
            return Interval.checked(value.start, value.end, log="log" in tags)
        if isinstance(value, RangeSweep):
            return Steps.checked(value.start, value.stop, value.step, log="log" in tags)
        if isinstance(value, ChoiceSweep):
            return Choice.checked(value.list, log="log" in tags)
    except ValueError as error:
        raise UserError(f"{name}: {error}, got {str(override.input_line).partition('=')[2]}") from None
    raise UserError(f"{name}: a search can't do with {str(override.input_line).partition('=')[2]}; name the choices")


def _conditions(
    when: Mapping[str, Any], domains: Mapping[str, tuple[str, Domain]], fixed: Mapping[str, tuple[Any, bool]]
) -> dict[str, tuple[Condition, ...]]:
    """Key → what it depends on. Raises UserError for a condition that can't be one."""
    found: dict[str, tuple[Condition, ...]] = {}
    for key, given in when.items():
        texts = given if isinstance(given, list) else [given]
        if not texts or not all(isinstance(text, str) and "=" in text for text in texts):
            raise UserError(f"{WHEN}: {key}: expected KEY=VALUE, or a list of them, got {given!r}")
        if key not in domains and key not in fixed:
            raise UserError(f"{WHEN}: '{key}' isn't searched{choices(str(key), domains)}")
        conditions = []
        for override in parse_overrides(texts):
            parent = _name(override)
            value = override.value()
            named: list[Any] = list(value.list) if isinstance(value, ChoiceSweep) else [value]
            values = tuple(getattr(value, "text", value) for value in named)
            if parent not in domains and parent not in fixed:
                raise UserError(f"{WHEN}: {key} depends on '{parent}', which isn't searched{choices(parent, domains)}")
            if parent in domains:
                domains[parent][1].check_condition(f"{WHEN}: {key}: {parent}", values)
            conditions.append(Condition(parent, values))
        if key in domains:
            found[str(key)] = tuple(conditions)
    return found


def _never(parameter: Parameter, fixed: Mapping[str, tuple[Any, bool]]) -> bool:
    """Whether a fixed word says that the parameter never applies. Raises UserError unless the command line did."""
    for condition in parameter.when:
        if condition.parent in fixed:
            value, is_typed = fixed[condition.parent]
            if not _among(value, condition.values):
                if not is_typed:
                    raise UserError(
                        f"{WHEN}: {parameter.name} is for {condition}, but {condition.parent} is fixed to {value}"
                    )
                return True
    return False


def _among(value: Any, values: Sequence[Any]) -> bool:
    """As `in`, but true isn't 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values)


def _ordered(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Parents first, otherwise as they were. Raises UserError for a circle."""
    ordered: list[Parameter] = []
    left = list(parameters)
    while left:
        known = {parameter.name for parameter in ordered}
        ready = next((p for p in left if all(condition.parent in known for condition in p.when)), None)
        if ready is None:
            raise UserError(f"{WHEN}: {', '.join(p.name for p in left)} depend on each other in a circle")
        ordered.append(ready)
        left.remove(ready)
    return tuple(ordered)
