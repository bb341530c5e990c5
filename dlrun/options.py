"""A command's own words: KEY=VALUE, held against the fields of a dataclass; what is the config's goes through."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from dlrun.errors import UserError, choices
from dlrun.registry import check_value

Options = TypeVar("Options")


def read(
    words: Sequence[str], cls: type[Options], command: str, more: Callable[[str], bool] = lambda key: False
) -> tuple[Options, list[str]]:
    """The options that the words give, and those words whose key is one of the config's, by `more`.

    The fields of the dataclass `cls` are the options, and their annotations the whole of their checking: `Share`,
    `Literal[…]`, `str`, `Path`, `list[Count]` (`a,b,c`, or the key again and again). Raises UserError for whatever else
    is said, and for an option that is missing.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    given: dict[str, Any] = {}
    passed_on = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key or key.startswith("-"):
            raise UserError(f"{command}: can't read '{word}'; expected KEY=VALUE (see dlrun {command} --help)")
        if key in hints:
            several = _kind(hints[key]) is list
            if key in given and not several:
                raise UserError(f"{key}: is said twice, {given[key]!r} and {text!r}")
            value = _value(text, hints[key], key)
            given[key] = given.get(key, []) + value if several else value
        elif more(key):
            passed_on.append(word)
        else:
            raise UserError(f"{key}: unknown option of {command}{choices(key, sorted({'run', *hints}))}")
    for key, value in given.items():
        if not isinstance(value, Path):
            check_value(value, hints[key], key)
    try:
        return cls(**given), passed_on
    except TypeError:
        required = [n for n, f in cls.__dataclass_fields__.items() if f.default is f.default_factory]  # type: ignore[attr-defined]
        missing = [name for name in required if name not in given]
        if not missing:
            raise
        raise UserError(f"{missing[0]}: is missing; see dlrun {command} --help") from None


def run_named(words: Sequence[str], command: str) -> tuple[str, list[str]]:
    """What `run=` says, and the other words. Raises UserError if it isn't there, or twice."""
    given = [word.partition("=")[2] for word in words if word.startswith("run=")]
    if len(given) != 1 or not given[0]:
        raise UserError(f"{command}: say which run: dlrun {command} run=DIR (or run=last)")
    return given[0], [word for word in words if not word.startswith("run=")]


def _kind(annotation: Any) -> Any:
    """The class that an annotation is of, without its bounds, and without None."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _kind(args[0])
    if origin in (typing.Union, types.UnionType):
        return _kind(next(arg for arg in args if arg is not types.NoneType))
    return origin or annotation


def _value(text: str, annotation: Any, key: str) -> Any:
    kind = _kind(annotation)
    if text == "null" and kind is not list:
        return None
    if kind is Path:
        if not text:
            raise UserError(f"{key}: expected a path, got nothing")
        return Path(os.path.expanduser(text))  # the shell doesn't, after an equals sign
    if kind is str:
        return text
    if kind is list:
        inside = next(arg for arg in _arguments(annotation) if arg is not types.NoneType)
        parts = text.removeprefix("[").removesuffix("]").split(",")
        return [_value(part.strip(), inside, key) for part in parts if part.strip()]
    return _plain(text)


def _arguments(annotation: Any) -> tuple[Any, ...]:
    """What a list is of."""
    if typing.get_origin(annotation) is list:
        return typing.get_args(annotation)
    return next(found for arg in typing.get_args(annotation) if (found := _arguments(arg)))


def _plain(text: str) -> Any:
    """As YAML would have it, and 1e-4 as a number, too."""
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
