"""A file imports only from floors below its own."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "dlrun"
FLOORS = [
    set(names.split())
    for names in (
        "agent allocator atomic barriers conffolder cores distributed eager ending errors garbage identity locks"
        " machine passwords plugins registry signals slurm spec torchrun wording",
        "data differences ema faults freezing fused groups history layers models muon optim precision predictions"
        " progress rounding saliency schedules scoring tally tasks together tta",
        "benching checkpoint compiling compose compression dataparallel evaluator exporting gradients initialization"
        " profiler runfolder tracking transfer weights writer",
        "findings logs mistakes runs trainer",
        "build config inputs",
        "changes commands comparison compressing drawing evaluation extension loading messages options quantizing"
        " lr_range rehearsal report reporting restoration session testing trackers train viz wandb_report watch",
        "resume",
        "sweep",
        "__main__ cli launch",
    )
]
# A floor has some order of its own; each of these is one step on the way, and there is no step back.
WITHIN = {
    ("registry", "errors"),
    ("ending", "barriers"),
    ("ending", "garbage"),
    ("plugins", "errors"),
    ("agent", "errors"),
    ("conffolder", "errors"),
    ("distributed", "errors"),
    ("distributed", "torchrun"),
    ("torchrun", "errors"),
    ("cores", "torchrun"),
    ("signals", "torchrun"),
    ("dataparallel", "gradients"),
    ("dataparallel", "runfolder"),
    ("dataparallel", "writer"),
    ("evaluator", "dataparallel"),
    ("train", "trackers"),
    ("reporting", "trackers"),
    ("trackers", "report"),
    ("commands", "wandb_report"),
    ("locks", "errors"),
    ("spec", "errors"),
    ("optim", "fused"),
    ("optim", "groups"),
    ("optim", "muon"),
    ("optim", "together"),
    ("precision", "rounding"),
    ("faults", "data"),
    ("faults", "progress"),
    ("tally", "faults"),
    ("tasks", "scoring"),
    ("weights", "checkpoint"),
    ("weights", "runfolder"),
    ("transfer", "weights"),
    ("signals", "errors"),
    ("writer", "checkpoint"),
    ("writer", "runfolder"),
    ("build", "config"),
    ("build", "inputs"),
    ("inputs", "config"),
    ("machine", "allocator"),
    ("machine", "errors"),
    ("machine", "torchrun"),
    ("train", "restoration"),
    ("train", "drawing"),
    ("train", "session"),
    ("session", "drawing"),
    ("session", "messages"),
    ("drawing", "viz"),
    ("commands", "viz"),
    ("train", "extension"),
    ("train", "testing"),
    ("train", "messages"),
    ("compression", "exporting"),
    ("benching", "exporting"),
    ("benching", "runfolder"),
    ("runs", "runfolder"),
    ("loading", "changes"),
    ("reporting", "loading"),
    ("evaluation", "loading"),
    ("commands", "evaluation"),
    ("commands", "compressing"),
    ("comparison", "loading"),
    ("commands", "comparison"),
    ("commands", "loading"),
    ("compressing", "changes"),
    ("compressing", "loading"),
    ("compressing", "quantizing"),
    ("compressing", "train"),
    ("commands", "quantizing"),
    ("quantizing", "loading"),
    ("quantizing", "reporting"),
    ("commands", "options"),
    ("report", "options"),
    ("commands", "report"),
    ("commands", "reporting"),
    ("commands", "trackers"),
    ("commands", "train"),
    ("commands", "viz"),
    ("commands", "lr_range"),
    ("commands", "watch"),
    ("cli", "launch"),
    ("__main__", "cli"),
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dlrun":
            parts = node.module.split(".")
            modules |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return modules - {"__version__"}


def test_every_import_goes_down() -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert len(files) > 40
    assert {room(path) for path in files} == set(floor), "a new room needs a floor"
    wrong = []
    for path in files:
        for target in imported_rooms(path):
            here = room(path)
            if target != here and floor[target] >= floor[here] and (here, target) not in WITHIN:
                wrong.append(f"{path.relative_to(PACKAGE)} (floor {floor[here]}) imports {target} ({floor[target]})")
    assert not wrong, "\n".join(wrong)
