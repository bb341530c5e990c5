"""What is said to people when they made a mistake, and the nearest thing they may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the command line, the config or the data: one clear line, exit code 2, no traceback."""


class OptionError(UserError):
    """A builder's word on one of its own options; the registry puts the config key in front of it."""

    def __init__(self, option: str, message: str):
        super().__init__(f"{option}: {message}")


class TrainingError(Exception):
    """The run can't go on, and it is nobody's typing mistake: one clear line, exit code 1, no traceback needed."""


class RunFailed(Exception):
    """A run that began and didn't end well; its folder and its log have been told already."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def choices(word: str, known: Iterable[str]) -> str:
    """The end of an "unknown …" sentence: the nearest match if there is one, then all that could be chosen."""
    known = sorted(known)
    # A prefix counts as near however short it is: `cn` is 0.8 like `cnn`, but `bre` only 0.4 like `breast_cancer`.
    near = (
        difflib.get_close_matches(word, known, n=1, cutoff=0.6) or [k for k in known if word and k.startswith(word)][:1]
    )
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{hint} (choose from {', '.join(known)})" if known else hint
