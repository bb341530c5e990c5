"""The command line: its words, help, errors and exit codes. Imports no torch, and no Hydra until it is needed."""

from __future__ import annotations

import ast
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from dlrun import __version__, agent, slurm
from dlrun.ending import run_to_end
from dlrun.errors import RunFailed, StopSignal, UserError, choices
from dlrun.signals import asked_to_stop, stop_as_exit
from dlrun.torchrun import follows, refuse_several

HELP = """\
dlrun: a config-driven experiment runner for deep learning

  dlrun [train] [KEY=VALUE …]       train; `dlrun` alone trains the default, model=cnn data=digits
  dlrun resume run=DIR|last         a run goes on where it stopped; trainer.max_epochs=… extends it
  dlrun eval run=DIR                the run on its test split: per class, calibration, the worst mistakes
  dlrun predict run=DIR input=PATH  classes and probabilities of your own pictures, texts or rows
  dlrun export run=DIR format=onnx  a file for ONNX Runtime, TorchScript, torch.export or AOTInductor; checked
  dlrun compress run=DIR method=…   a smaller run: pruned, or quantised to int8; fine-tuned and tested
  dlrun bench run=DIR               latency, throughput, memory, size, accuracy of all that became of a run
  dlrun watch [run=DIR|last]        a running or finished run in the terminal: curves, speed, time left
  dlrun report run=DIR|runs=GLOB    one HTML file to mail: a run, or many compared
  dlrun plot KIND …                 filters, features, attention, gradcam, landscape, kernel, schedules, augment
  dlrun find-lr [KEY=VALUE …]       learning-rate range test, with a suggestion
  dlrun sweep VERB run=DIR|last     of a multirun: resume, status, report, best, extend
  dlrun wandb-sweep KEY=VALUES …    the YAML of a W&B sweep, so that wandb agent drives dlrun
  dlrun wandb-report KEY=VALUES …   a report or a workspace in W&B, ready made
  dlrun list [GROUP]                everything that can be chosen
  dlrun info [KEY=VALUE …]          the model that would be built: layers, shapes, parameters, FLOPs

Choosing and overriding (dlrun --cfg job shows every key):
  dlrun model=lstm data=pydocs                       a choice from each config group
  dlrun optimizer=sgd optimizer.lr=0.05 seed=1       an option of what was chosen
  dlrun experiment=digits_cnn                        a tuned recipe
  dlrun init_from=DIR                                begin with the weights of another run
  dlrun -m model=mlp,cnn seed=0,1,2                  one job for each combination

Going on (dlrun resume run=DIR):
  trainer.max_epochs= max_steps= max_time= patience=            longer; max_time counts all parts of a run together
  scheduler.total_steps=                                        what a longer run means for the learning rate
  trainer.checkpoint_every= checkpoint_every_n_steps= log_every_n_steps= on_nonfinite= max_rollbacks= on_oom=
  trainer.num_threads= profile= enable_progress_bar=  data.root= data.file= data.num_workers= data.cache=
  device=  tracking=none  tracking.wandb.mode=…  tags=  notes=  plots=  plugins=[…]
                                                                (all else would make it another run: init_from=DIR)

With run=DIR the folder is all that is needed; run=last is the run begun last. dlrun eval --help and so on say more.

Flags:
  -m, --multirun                    run a job for each combination of comma-separated values
  --cfg job|hydra|all               print the config and stop; add --resolve to fill in ${references}
  --info [all|defaults|searchpath|…]    what Hydra made of it
  --config-dir DIR                  a folder with your own configs, looked in first
  --config-name NAME                another top config than config.yaml
  --hydra-help                      Hydra's own flags
  --version, --help
  eval "$(dlrun -sc install=bash)"  tab completion (bash, zsh: same; fish: -sc install=fish | source)

Exit codes: 0 done · 1 the run failed · 2 the command line or the config is wrong · 130 Ctrl-C · 143 SIGTERM or SIGUSR1
"""


def run() -> None:
    """Entry point of the `dlrun` command."""
    run_to_end(main, agent.leave)


def main() -> None:
    """Run the command that `sys.argv` says; ends in SystemExit."""
    words = sys.argv[1:]
    # Output may be piped into something that stops reading, like `head`; and names may need more than ASCII.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    stop_as_exit()
    try:
        sys.exit(dispatch(words))
    except UserError as error:
        if follows():
            _let_rank_0_speak()
        print(f"dlrun: {error}", file=sys.stderr)
        sys.exit(2)
    except RunFailed as error:
        sys.exit(error.exit_code)  # the run has told why
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (KeyboardInterrupt, StopSignal) as error:
        _stopped(error, words)
    except Exception as error:
        if (stop := asked_to_stop()) is None:
            raise
        _stopped(stop, words, error)


def _stopped(stop: BaseException, words: Sequence[str], cause: Exception | None = None) -> NoReturn:
    """By a signal before or after a training, which has its own way to stop."""
    name = stop.name if isinstance(stop, StopSignal) else "Ctrl-C"
    if follows():
        raise SystemExit(stop.code if isinstance(stop, StopSignal) else 130) from cause
    logging.getLogger("torch").setLevel(logging.WARNING)  # stopped in its import, it speaks of its caches at the end
    print(f"dlrun: stopped by {name}", file=sys.stderr)
    trains = not words or words[0] in ("train", "resume") or words[0] not in COMMANDS
    if name == "SIGUSR1" and trains and slurm.job() is not None:
        slurm.requeue()
    raise SystemExit(stop.code if isinstance(stop, StopSignal) else 130) from cause


def _let_rank_0_speak() -> None:
    """It makes the same mistake, most likely, and torchrun ends this process then."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(3)


def dispatch(words: Sequence[str]) -> int:
    """Run a command; returns its exit code. Raises UserError for a wrong command line."""
    command, rest = "train", list(words)
    if words and words[0] in COMMANDS:
        command, rest = words[0], list(words[1:])
    elif words and words[0].isalpha():
        raise UserError(f"unknown command '{words[0]}'{choices(words[0], COMMANDS)}")
    if {"--help", "-h"} & set(rest):
        print(_help(command, rest), end="")
        return 0
    if "--version" in rest:
        print(f"dlrun {__version__}")
        return 0
    if command not in ("train", "resume"):
        refuse_several(command)
    return COMMANDS[command](rest)


def _train(words: Sequence[str]) -> int:
    from dlrun.launch import run

    if "--shell-completion" in words or "-sc" in words:
        return _complete(words)
    return run(words)


def _resume(words: Sequence[str]) -> int:
    from dlrun.resume import run

    return run(words)


def _complete(words: Sequence[str]) -> int:
    """Hydra completes overrides; the command words are ours."""
    from dlrun.launch import run

    line = os.environ.get("COMP_LINE", "")
    name, _, rest = line.partition(" ")
    first, space, after = rest.lstrip().partition(" ")
    if any(word.startswith("query=") for word in words):
        if not space and first and not first.startswith("-") and "=" not in first:
            for command in COMMANDS:
                if command.startswith(first):
                    print(command)
        elif first in COMMANDS:
            os.environ["COMP_LINE"] = f"{name} {after}"
            os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    run(words)
    return 0


def _list(words: Sequence[str]) -> int:
    from dlrun.commands.list import run

    return run(words)


def _on_a_run(command: str) -> Callable[[Sequence[str]], int]:
    """A command whose only argument is a run folder: `run` of the module of its name."""

    def run(words: Sequence[str]) -> int:
        from dlrun.options import run_named
        from dlrun.runs import find

        find(run_named(words, command)[0])  # what is most often wrong is said before torch is imported
        code: int = import_module(f"dlrun.commands.{command}").run(words)
        return code

    return run


def _help(command: str, words: Sequence[str]) -> str:
    """What the command's own module begins with: it is read, not imported."""
    if command == "plot":
        from dlrun.commands.plot import explained

        return explained(words)
    if command not in (*ON_A_RUN, *MODULES):
        return HELP
    place = MODULES.get(command, f"dlrun.commands.{command}").removeprefix("dlrun.").replace(".", "/") + ".py"
    source = (Path(__file__).parent / place).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "") + "\n"


def _of(module: str) -> Callable[[Sequence[str]], int]:
    """A command that is `run` of a module, which is imported when it is called."""

    def run(words: Sequence[str]) -> int:
        code: int = import_module(module).run(words)
        return code

    return run


# Commands whose module begins with their help.
MODULES = {
    "info": "dlrun.commands.info",
    "watch": "dlrun.commands.watch",
    "report": "dlrun.commands.report",
    "find-lr": "dlrun.commands.find_lr",
    "sweep": "dlrun.sweep.verbs",
    "wandb-sweep": "dlrun.sweep.wandb_sweep",
    "wandb-report": "dlrun.commands.wandb_report",
}
ON_A_RUN = ("eval", "predict", "export", "compress", "bench")
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "resume": _resume,
    **{command: _on_a_run(command) for command in ON_A_RUN},
    **{command: _of(module) for command, module in MODULES.items()},
    "plot": _of("dlrun.commands.plot"),
    "list": _list,
}
