"""How long does a grid of a thousand jobs take to be composed, checked and frozen, beside Hydra composing them alone?

Hydra's part is `hydra.compose`, once for each job, and the config as a dict. dlrun's is all that comes before the first
job starts: from the words to a manifest on disk, every job's model, optimizer and schedule built. Importing isn't in
either.

    python benchmarks/freezing.py [--rounds 3] [--jobs 1000]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from measure import arguments, interleaved, ratio, report
from omegaconf import OmegaConf

from dlrun.compose import compose, parse_arguments
from dlrun.conffolder import conf_folder
from dlrun.sweep.composition import Composer
from dlrun.sweep.folder import SweepFolder
from dlrun.sweep.grid import axes, combinations, swept
from dlrun.sweep.policy import policy
from dlrun.sweep.starting import naming, prepare


def words_of(jobs: int) -> list[str]:
    """Two models, five learning rates, five dropouts, and as many seeds as it takes."""
    lists = ["model=mlp,cnn", "optimizer.lr=1e-4,3e-4,1e-3,3e-3,1e-2", "model.dropout=0.1,0.2,0.3,0.4,0.5"]
    return ["tracking=none", *lists, f"seed=range({-(-jobs // 50)})"]


def by_hydra(jobs: list[list[str]]) -> float:
    GlobalHydra.instance().clear()
    began = time.perf_counter()
    with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
        for words in jobs:
            cfg = hydra_compose("config", overrides=words)
            OmegaConf.to_container(cfg, resolve=True)
    return time.perf_counter() - began


def by_dlrun(words: list[str]) -> float:
    began = time.perf_counter()
    args = parse_arguments(["-m", *words])
    cfg = compose(args)
    composer, grid = Composer(args), axes(args.overrides)
    jobs, _ = prepare(composer, combinations(grid), swept(grid), naming(cfg), policy(cfg), elsewhere=False)
    with tempfile.TemporaryDirectory() as folder:
        sweep = SweepFolder(Path(folder))
        sweep.write_bases(composer.bases)
        sweep.append(jobs)
    return time.perf_counter() - began


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--jobs", type=int, default=1000)
    options = parser.parse_args()
    words = words_of(options.jobs)
    jobs = combinations(axes(words))
    cases = {"hydra.compose alone": lambda: by_hydra(jobs), "composed, checked, frozen": lambda: by_dlrun(words)}
    taken = interleaved(cases, options.rounds, warmup=0)
    rows = [(name, statistics.median(taken[name]), ratio(taken, name, "hydra.compose alone")) for name in cases]
    report("freezing", ("what", "s", "ratio"), rows, jobs=len(jobs), rounds=options.rounds)


if __name__ == "__main__":
    main()
