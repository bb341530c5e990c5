"""dlrun wandb-sweep: the YAML of a W&B sweep from a search space, so that `wandb agent` drives dlrun

  dlrun wandb-sweep model=mlp,cnn 'optimizer.lr=tag(log,interval(1e-5,1e-1))' trainer.max_epochs=20
  wandb sweep wandb-sweep.yaml                   W&B makes a sweep of it, and says its id
  wandb agent ENTITY/PROJECT/ID                  runs it, here and on as many machines as you like

The space is what `dlrun -m hydra/sweeper=optuna` takes, in words or from YAML (experiment=…); a word with one value
goes into every run's command. All of it is composed and built once (sweep.check=config|build|batch) before it is
written. The metric is trainer.monitor, and of each run its best value counts.

  method=bayes|random|grid       how W&B chooses; bayes, or what the space's own sampler is
  name=TEXT                      of the sweep
  early_terminate=hyperband      W&B stops runs that look hopeless after a third and a ninth of their evaluations
  run_cap=N                      runs in all; hydra.sweeper.n_trials if that is set
  out=FILE                       wandb-sweep.yaml

What W&B can't express is refused: conditions between parameters, a grid over an interval of numbers.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import DictConfig

from dlrun.compose import compose, parse_arguments, parse_overrides
from dlrun.errors import UserError
from dlrun.options import read
from dlrun.registry import Count
from dlrun.sweep.composition import Composer, job_words
from dlrun.sweep.policy import policy
from dlrun.sweep.search.objectives import OF_THE_RUN, read_objectives
from dlrun.sweep.search.options import SearchOptions, read_options
from dlrun.sweep.search.space import Space, read_space
from dlrun.sweep.search.trying import try_out
from dlrun.sweep.search.wandb_parameters import Method, early_termination, parameters
from dlrun.sweep.starting import plain_node

HEADER = "# A W&B sweep, by dlrun wandb-sweep\n"
OF_SWEEPING = (
    "hydra/sweeper",
    "hydra.sweeper",
    "hydra/launcher",
    "hydra.launcher",
    "hydra.sweep",
    "hydra.mode",
    "sweep",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    method: Method | None = None
    name: str | None = None
    early_terminate: Literal["hyperband"] | None = None
    run_cap: Count | None = None
    out: Path = Path("wandb-sweep.yaml")


def run(words: Sequence[str]) -> int:
    """Write the file, and say how to go on. Raises UserError for what W&B can't express, or no run could train with."""
    names = {field.name for field in fields(Options)}
    mine = [word for word in words if word.partition("=")[0] in names]
    options, _ = read(mine, Options, "wandb-sweep")
    args = parse_arguments([word for word in words if word not in mine])
    args.multirun = True  # words may have several values
    sweep = _sweep(args, options)
    _write(options.out, sweep)
    count = len(sweep["parameters"])
    metric = f"{sweep['metric']['goal']} {sweep['metric']['name']}"
    print(f"{options.out}: {count} parameter{'s' * (count != 1)}, method {sweep['method']}, {metric}")
    print(f"to go on: wandb sweep {options.out}, and then the wandb agent … that it prints")
    return 0


def _sweep(args: Namespace, options: Options) -> dict[str, Any]:
    cfg = compose(args)
    node = plain_node(cfg.hydra.sweeper)
    search = (
        read_options(node) if node.get("name") == "optuna" else SearchOptions(name="optuna", params=node.get("params"))
    )
    words = job_words(args.overrides)
    if not search.params and not any(word.is_sweep_override() for word in parse_overrides(words)):
        raise UserError("wandb-sweep: nothing to search; say, for example, 'optimizer.lr=tag(log,interval(1e-4,1e-1))'")
    space = read_space(words, search.params or {}, search.when or {})
    method = options.method or _method(search)
    if search.pruner is not None and options.early_terminate is None:
        print("hydra.sweeper.pruner is Optuna's, and left out; W&B has early_terminate=hyperband")
    chosen = parameters(space, method)  # what W&B can't express is said before torch is imported
    from dlrun.rehearsal import Rehearsal

    configs = try_out(space, Composer(args), Rehearsal(policy(cfg).check, elsewhere=True).check)
    for config in configs:
        _check_told(config)
    wandb = configs[0]["tracking"]["wandb"]
    sweep = {
        "program": "dlrun",
        "name": options.name,
        "project": wandb["project"],
        "entity": wandb["entity"],
        "method": method,
        "metric": _metric(search, configs[0]),
        "parameters": chosen,
        "run_cap": options.run_cap or search.n_trials,
        "command": ["${env}", *_program(), *_fixed(args, cfg, space), "${args_no_hyphens}"],
    }
    if options.early_terminate is not None:
        sweep["early_terminate"] = early_termination(options.early_terminate, space, configs)
        # W&B's default for a run that was stopped is the worst value of all runs, however far it had come.
        sweep["metric"]["impute"] = "best"
    return {key: value for key, value in sweep.items() if value is not None}


def _method(search: SearchOptions) -> Method:
    """What comes nearest to the space's own sampler. Raises UserError if nothing does."""
    name = search.sampler if isinstance(search.sampler, str) else search.sampler.get("name")
    methods: dict[Any, Method] = {"tpe": "bayes", "gp": "bayes", "random": "random", "grid": "grid"}
    if name not in methods:
        raise UserError(f"method: W&B has nothing like hydra.sweeper.sampler={name}; say method=bayes, random or grid")
    return methods[name]


def _check_told(config: Mapping[str, Any]) -> None:
    """Raises UserError for a run of which W&B isn't told."""
    wandb = config["tracking"].get("wandb")
    if wandb is None:
        raise UserError("tracking: a W&B sweep sees what W&B is told, and it is off; say tracking=wandb")
    if wandb.get("mode") == "offline":
        raise UserError(
            "tracking.wandb.mode: a W&B sweep sees what W&B is told; expected auto or online, got 'offline'"
        )
    if config["trainer"]["fast_dev_run"]:
        raise UserError("trainer.fast_dev_run: it tells W&B nothing, which a W&B sweep can't do without")


def _metric(search: SearchOptions, config: Mapping[str, Any]) -> dict[str, Any]:
    (name, goal), *more = read_objectives(search, config).items()
    if more:
        raise UserError(f"hydra.sweeper.objective: a W&B sweep has one metric, got {name} and {more[0][0]}")
    if name in OF_THE_RUN:
        raise UserError(f"hydra.sweeper.objective: a W&B sweep needs a metric of each epoch, got '{name}'")
    return {"name": name, "goal": goal}


def _program() -> list[str]:
    """`dlrun`, or how it was called where that isn't on the path."""
    return ["${interpreter}", "-m", "dlrun"] if Path(sys.argv[0]).name == "__main__.py" else ["dlrun"]


def _fixed(args: Namespace, cfg: DictConfig, space: Space) -> list[str]:
    """What every run's command says: the words with one value, and those about Hydra but not about sweeping."""
    of_jobs = set(job_words(args.overrides))
    hydras = [word for word in args.overrides if word not in of_jobs and not _is_about_sweeping(word)]
    flags = {"--config-path": args.config_path, "--config-dir": args.config_dir, "--config-name": args.config_name}
    said = [word for flag, value in flags.items() if value is not None for word in (flag, str(value))]
    single = [] if cfg.hydra.mode is None else ["hydra.mode=RUN"]
    return [*said, *hydras, *single, *space.fixed]


def _is_about_sweeping(word: str) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    return any(key == place or key.startswith(f"{place}.") for place in OF_SWEEPING)


def _write(path: Path, sweep: Mapping[str, Any]) -> None:
    """Into a file of its own. Raises UserError if it holds something else, or can't be written."""
    try:
        if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
            raise UserError(f"out: {path} is there already, and isn't by dlrun wandb-sweep; choose another name")
        text = yaml.safe_dump(dict(sweep), sort_keys=False, allow_unicode=True, width=120)
        path.write_text(
            f"{HEADER}# wandb sweep {path.name}; then the wandb agent … that it prints\n{text}", encoding="utf-8"
        )
    except OSError as error:
        raise UserError(f"out: can't write {path} ({error.strerror})") from error
