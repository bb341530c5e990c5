"""dlrun plot KIND …: pictures of a run's network, and of what a training would do

  dlrun plot filters run=DIR                            the first layer's filters
  dlrun plot features run=DIR [input=FILE]              what each convolution makes of a sample
  dlrun plot attention run=DIR [input=FILE]             where a transformer looks, per layer and head; an LSTM's words
  dlrun plot gradcam run=DIR [input=FILE]               what spoke for the answer
  dlrun plot landscape run=DIR                          the loss along two directions in the space of the weights
  dlrun plot kernel [kernel=[[…]]] [input=FILE]         what a convolution with one kernel does, number by number
  dlrun plot schedules [scheduler=cosine,step]          learning rate over steps, of any schedules, without training
  dlrun plot augment data=cifar10 augment=standard      originals, and what training would see of them

dlrun plot KIND --help says more.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from dlrun.errors import UserError, choices

KINDS = ("filters", "features", "attention", "gradcam", "landscape", "kernel", "schedules", "augment")


def run(words: Sequence[str]) -> int:
    """Run `dlrun.commands.plot.<kind>`; returns its exit code."""
    if not words or "=" in words[0] or words[0].startswith("-"):
        raise UserError(f"plot: say what: dlrun plot {'|'.join(KINDS)}")
    kind, rest = words[0], words[1:]
    if kind not in KINDS:
        raise UserError(f"unknown plot '{kind}'{choices(kind, KINDS)}")
    code: int = import_module(f"dlrun.commands.plot.{kind}").run(rest)
    return code


def explained(words: Sequence[str]) -> str:
    """The help of the kind that the words name, or of all."""
    kind = next((word for word in words if word in KINDS), "__init__")
    source = (Path(__file__).parent / f"{kind}.py").read_text(encoding="utf-8")  # read, not imported
    return (ast.get_docstring(ast.parse(source)) or "") + "\n"
