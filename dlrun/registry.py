"""A name → the builder, and a builder's options checked against its own signature.

A builder is any callable with a docstring. What dlrun hands it (a `DataSpec`, parameters, a clock) comes by position;
what the user sets in YAML are its keyword-only parameters, and their annotations are the whole of their checking:

    @models.register("mlp")
    def mlp(spec: DataSpec, *, hidden_sizes: list[Count] = [512, 256], dropout: Fraction = 0.3): ...
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from dlrun.errors import OptionError, UserError, choices, memory_for

LARGEST = 3.4028234e38  # a 32-bit float

Count = Annotated[int, Ge(1)]
Depth = Annotated[int, Ge(1), Le(1000)]  # of layers, each made by itself: more would take longer than anybody waits
Index = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Lt(2**32)]  # what NumPy and scikit-learn take
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]  # a share that leaves something over, such as a dropout
Share = Annotated[float, Gt(0), Lt(1)]
Ratio = Annotated[float, Ge(0), Le(1)]
Size = Annotated[list[Count], MinLen(2), MaxLen(2)]  # [height, width]


class Registry:
    """All builders of one kind (`model`, `data`, …), found in one module or in all modules of one package.

    A module is imported when a builder of its own is asked for, not before: names and descriptions are read from the
    source, so that listing everything needs no torch, and one builder none of the libraries that the others need.
    """

    def __init__(self, kind: str, home: str):
        self.kind, self.home = kind, home
        self._builders: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator that registers a builder; a name can be taken once."""

        def add(builder: Callable[..., Any]) -> Callable[..., Any]:
            taken = self._builders.get(name)
            # A plugin that is imported a second time under another name brings the same builder again.
            if taken is not None:
                clashes, first = _origin(taken) != _origin(builder), taken.__module__
            else:
                first = self._module(name) or builder.__module__
                clashes = first != builder.__module__
            if clashes:
                both = f"{first} and {builder.__module__}"
                raise UserError(f"{self.kind} '{name}' is already registered: by both {both}")
            self._builders[name] = builder
            return builder

        return add

    def names(self) -> list[str]:
        """All registered names, sorted; imports nothing."""
        return sorted(self.summaries())

    def summaries(self) -> dict[str, str]:
        """Name → first line of the builder's docstring, sorted by name; imports nothing."""
        found = {name: summary for _, path in _sources(self.home) for name, summary in _registered(path)}
        found |= {name: (inspect.getdoc(b) or "").partition("\n")[0] for name, b in self._builders.items()}
        return dict(sorted(found.items()))

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """The builder; raises UserError with the nearest match for an unknown name."""
        if name not in self._builders and (module := self._module(name)) is not None:
            importlib.import_module(module)
        if name not in self._builders:
            raise UserError(f"unknown {self.kind} '{name}'{choices(str(name), self.names())}")
        return self._builders[name]

    def _module(self, name: str) -> str | None:
        """The module of the home that registers `name`; imports nothing."""
        for module, path in _sources(self.home):
            # Most files needn't be parsed.
            if name.encode(errors="replace") in path.read_bytes() and name in dict(_registered(path)):
                return module
        return None

    def build(self, name: str, options: Mapping[str, Any], *given: Any) -> Any:
        """Check `options` against the builder's signature and call it with `given` and them."""
        builder = self[name]
        check_options(builder, options, self.kind)
        try:
            with memory_for(self.kind):
                return builder(*given, **options)
        except OptionError as error:
            raise UserError(f"{self.kind}.{error}") from error


def check_options(builder: Callable[..., Any], options: Mapping[str, Any], key: str) -> None:
    """Hold options against a builder's keyword-only parameters: names, types, ranges, and what is missing."""
    parameters = {
        p.name: p for p in inspect.signature(builder).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    hints = _hints(builder)
    prefix = f"{key}." if key else ""
    for name, value in options.items():
        if name not in parameters:
            raise UserError(f"{prefix}{name}: unknown option{choices(str(name), parameters)}")
        check_value(value, hints.get(name, Any), f"{prefix}{name}")
    for name, parameter in parameters.items():
        if name not in options and parameter.default is inspect.Parameter.empty:
            raise UserError(f"{prefix}{name}: is missing; expected {describe(hints.get(name, Any))}")


def check_value(value: Any, annotation: Any, key: str) -> None:
    """Raise UserError unless `value` is what `annotation` says, without conversion (but a whole number is a number)."""
    from pydantic import ValidationError

    if (got := _unholdable(value)) is not None:
        raise UserError(f"{key}: expected {describe(annotation)}, {got}")
    try:
        adapter = _kept_adapter(annotation) if _hashable(annotation) else _adapter(annotation)
        adapter.validate_python(value)
    except ValidationError:
        raise UserError(f"{key}: expected {describe(annotation)}, got {value!r}") from None


@cache
def _kept_adapter(annotation: Hashable) -> Any:
    """Made once for each annotation: a sweep checks the same ones a thousand times."""
    return _adapter(annotation)


def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return TypeAdapter(annotation, config=config)


def _hashable(annotation: Any) -> bool:
    """A plugin's own metadata may be a list."""
    try:
        hash(annotation)
    except TypeError:
        return False
    return True


def _unholdable(value: Any) -> str | None:
    """What torch couldn't take of a value, inside of lists and mappings too: it would fail later, and in its words."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"got {value!r}, which 64 bits can't hold"
    if isinstance(value, float) and LARGEST < abs(value) < math.inf:
        return f"got {value!r}, which a 32-bit float can't hold"
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((found for item in inner if (found := _unholdable(item)) is not None), None)


def describe(annotation: Any) -> str:
    """An annotation in words: `Annotated[float, Gt(0)]` is "a number > 0"."""
    if annotation in (None, types.NoneType):
        return "null"
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return describe(args[0]) + " and".join(_bound(a) for a in args[1:])
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(a) for a in args)
    if origin is list:
        return f"a list, each {describe(args[0])}"
    if origin is tuple:
        return f"a list of {len(args)}, each {describe(args[0])}"
    if origin is dict:
        return "a mapping"
    return str(annotation)


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Any: "any value"}
_WORDS |= {list: "a list", dict: "a mapping"}
_SIGNS = {Gt: (">", "gt"), Ge: (">=", "ge"), Lt: ("<", "lt"), Le: ("<=", "le")}


def _bound(constraint: Any) -> str:
    if isinstance(constraint, MinLen):
        return f", {constraint.min_length} or more of them"
    if isinstance(constraint, MaxLen):
        return f" at most {constraint.max_length}"
    sign, attribute = _SIGNS[type(constraint)]
    return f" {sign} {getattr(constraint, attribute)}"


@cache
def _hints(builder: Callable[..., Any]) -> dict[str, Any]:
    target = builder.__init__ if inspect.isclass(builder) else builder  # type: ignore[misc]
    return typing.get_type_hints(target, include_extras=True)


def _origin(builder: Callable[..., Any]) -> tuple[str | None, str]:
    return inspect.getsourcefile(builder), builder.__qualname__


def _sources(home: str) -> Iterator[tuple[str, Path]]:
    """(module name, source file) of a module, or of all modules of a package."""
    found = importlib.util.find_spec(home)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(home)
    yield home, Path(found.origin)
    for folder in found.submodule_search_locations or []:
        for module in pkgutil.iter_modules([folder]):
            yield f"{home}.{module.name}", Path(folder, f"{module.name}.py")


@cache
def _registered(path: Path) -> tuple[tuple[str, str], ...]:
    """(name, first docstring line) of each `@….register("name")` in a source file, without importing it."""
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        summary = (ast.get_docstring(node) or "").partition("\n")[0]
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(func=ast.Attribute(attr="register"), args=[ast.Constant(value=str(name))]):
                    found.append((name, summary))
    return tuple(found)


models = Registry("model", "dlrun.models")
datasets = Registry("data", "dlrun.data")
tasks = Registry("task", "dlrun.tasks")
optimizers = Registry("optimizer", "dlrun.optim")
schedules = Registry("scheduler", "dlrun.schedules")
precisions = Registry("precision", "dlrun.precision")
REGISTRIES = {registry.kind: registry for registry in (models, datasets, tasks, optimizers, schedules, precisions)}
