"""Imports happen when they are needed and not before: a fresh process per command, and what must not be in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """if True:
    import json, sys
    from dlrun.cli import main
    try:
        main()
    except SystemExit as end:
        print(json.dumps([end.code, sorted(sys.modules)]))
"""
CONFIG = {"hydra", "omegaconf", "antlr4", "yaml", "pydantic", "annotated_types", "importlib.metadata", "subprocess"}
HEAVY = {"torch", "numpy", "torchvision", "sklearn", "scipy", "albumentations", "cv2", "PIL", "tokenizers", "wandb"}
HEAVY |= {"tensorboard", "pandas", "matplotlib", "timm", "tqdm", "pydantic"}
RUN = ["trainer.fast_dev_run=true", "tracking=none", "device=cpu", "trainer.ema_decay=0.9"]
COMPLETION = {"COMP_LINE": "dlrun model=tr", "COMP_POINT": "14"}


@pytest.mark.parametrize(
    ("words", "printed", "unwanted"),
    [
        (["--help"], "a config-driven experiment runner", CONFIG | HEAVY),
        (["--version"], "dlrun 0", CONFIG | HEAVY),
        (["list"], "adadelta", HEAVY | {"hydra", "omegaconf"}),
        (["--cfg", "job"], "batch_size: 64", HEAVY),
        (["-sc", "query=bash"], "model=transformer", HEAVY),
        (RUN, "best", HEAVY - {"torch", "numpy", "tqdm", "pydantic"} | {"torch._dynamo", "torch._inductor"}),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_nothing_is_imported_that_is_not_needed(words, printed, unwanted, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words],
        cwd=tmp_path,
        env={**os.environ, **COMPLETION},
        capture_output=True,
        text=True,
    )
    *lines, last = done.stdout.splitlines()
    code, modules = json.loads(last)
    assert code in (0, None), done.stderr
    assert printed in "\n".join(lines)
    assert sorted(unwanted & set(modules)) == []
