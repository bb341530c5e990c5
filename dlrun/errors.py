"""What is said to people when they made a mistake, and the nearest thing they may have meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LONGEST = 1500  # characters of a message; torchvision's architectures, listed, are 1,100
# What torch and NumPy say, of several types, about a size that the machine or 64 bits can't hold.
TOO_LARGE = re.compile(
    "(?i)allocate|out of memory|overflow|cannot be represented|array is too big|maximum allowed dimension"
)


class UserError(Exception):
    """A mistake in the command line, the config or the data: one clear line, exit code 2, no traceback."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class OptionError(UserError):
    """A builder's word on one of its own options; the registry puts the config key in front of it."""

    def __init__(self, option: str, message: str):
        super().__init__(f"{option}: {message}")


class TrainingError(Exception):
    """The run can't go on, and it is nobody's typing mistake: one clear line, exit code 1, no traceback needed."""


class StopSignal(SystemExit):
    """SIGTERM or SIGUSR1 outside of a training; not what a module means that calls `sys.exit` when it is imported."""

    def __init__(self, name: str, exit_code: int):
        super().__init__(exit_code)
        self.name = name  # of the signal


class RunFailed(Exception):
    """A run that began and didn't end well; its folder and its log have been told already."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def printable(message: str) -> str:
    """The message as one line for a terminal, whatever the words had in them; a long one loses its middle."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
    return shortened(line, LONGEST)


def shortened(text: str, longest: int = 200) -> str:
    """The beginning and the end of a long text."""
    return text if len(text) <= longest else f"{text[: longest // 2]} … {text[-longest // 2 :]}"


@contextmanager
def memory_for(part: str) -> Iterator[None]:
    """A size that doesn't fit is the config's mistake, whatever the library that it stopped calls it."""
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError, ValueError, TypeError) as error:
        line = str(error).partition("\n")[0]
        if not isinstance(error, MemoryError | OverflowError) and not TOO_LARGE.search(line):
            raise
        reason = line.rpartition("memory: ")[2]
        raise UserError(f"{part}: too large for this machine ({reason or type(error).__name__})") from error


def choices(word: str, known: Iterable[str]) -> str:
    """The end of an "unknown …" sentence: the nearest match if there is one, then all that could be chosen."""
    known = sorted(known)
    # A prefix counts as near however short it is: `cn` is 0.8 like `cnn`, but `bre` only 0.4 like `breast_cancer`.
    near = (
        difflib.get_close_matches(word, known, n=1, cutoff=0.6) or [k for k in known if word and k.startswith(word)][:1]
    )
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{hint} (choose from {', '.join(known)})" if known else hint
