"""What a user types, and what is printed, left behind and returned."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from command_line import CommandLine

# 250 samples and a small net: a training in a fraction of a second.
QUICK = [
    "tracking=none",
    "data.limit=250",
    "model=mlp",
    "model.hidden_sizes=[16]",
    "trainer.max_epochs=2",
    "augment=none",
]


def test_a_run_leaves_everything_in_its_folder(dlrun: CommandLine) -> None:
    words = [*QUICK, "seed=3", "notes=hello", "plots=true"]
    result = dlrun(*words)
    assert result.code == 0, result.err
    (folder,) = dlrun.runs()
    assert re.fullmatch(r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-[0-9a-z]{8}", str(folder.relative_to(dlrun.folder)))
    assert {path.name for path in folder.iterdir()} == {
        *(".hydra", ".lock", "checkpoints", "config.yaml", "dlrun.log", "metrics.csv", "plots", "summary.json")
    }
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["run_id"] == folder.name[-8:]
    assert (summary["status"], summary["exit_code"], summary["error"]) == ("finished", 0, None)
    assert (summary["epochs"], summary["steps"]) == (2, 8)
    assert summary["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    assert summary["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert summary["command"] == ["dlrun", *words]
    assert 0 < summary["test"]["test/acc"] < 1
    parts = ("starting", "training", "waiting_for_data", "evaluation", "saving", "test", "drawing")
    assert tuple(summary["time"]) == parts
    assert all(summary["time"][part] > 0 for part in parts)
    assert summary["time"]["waiting_for_data"] < summary["time"]["training"]
    assert sum(summary["time"].values()) - summary["time"]["waiting_for_data"] <= summary["seconds"]
    plots = {path.name for path in (folder / "plots").iterdir()}
    found = [f"{name}.{suffix}" for name in ("confusion", "calibration", "mistakes") for suffix in ("png", "json")]
    assert plots == {"curves.png", *found}
    mistakes = json.loads((folder / "plots/mistakes.json").read_text())
    assert mistakes["wrong"] == round((1 - summary["test"]["test/acc"]) * mistakes["samples"])
    assert mistakes["epoch"] == summary["best"]["epoch"]
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    best = max(rows, key=lambda row: float(row["val/acc"]))
    assert summary["best"]["val/acc"] == pytest.approx(float(best["val/acc"]), rel=1e-5)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["seed"], config["notes"], config["model"]["hidden_sizes"]) == (3, "hello", [16])
    for line in (
        "model=mlp  data=digits",
        "epoch 1/2",
        "epoch 2/2",
        "best   val/acc",
        "test   test/loss",
        "folder outputs/",
    ):
        assert line in result.out
        assert line in (folder / "dlrun.log").read_text()
    for name in ("best", "last"):
        checkpoint = torch.load(folder / f"checkpoints/{name}.pt", weights_only=True)
        assert checkpoint["config"] == config
        assert checkpoint["spec"]["class_names"] == tuple("0123456789")
        assert set(checkpoint["model"]) == {"1.weight", "1.bias", "4.weight", "4.bias"}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(dlrun: CommandLine) -> None:
    for words in (["seed=0", "data.num_workers=0"], ["seed=0", "data.num_workers=2"], ["seed=1"]):
        assert dlrun(*QUICK, "augment=affine", *words).code == 0
    weights = [torch.load(folder / "checkpoints/last.pt", weights_only=True)["model"] for folder in dlrun.runs()]
    same, other = (all(torch.equal(weights[0][key], w[key]) for key in weights[0]) for w in weights[1:])
    assert same
    assert not other


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=cn"], "unknown model 'cn'; did you mean 'cnn'? (choose from cnn, lstm, mlp"),
        (["data=digit"], "unknown data 'digit'; did you mean 'digits'?"),
        (["modle=cnn"], "unknown option 'modle'; did you mean 'model'?"),
        (["trainer.max_epoch=3"], "unknown option 'trainer.max_epoch'; did you mean 'max_epochs'?"),
        (["model=mlp", "+model.droput=0.1"], "model.droput: unknown option; did you mean 'dropout'?"),
        (["optimizer.lr=abc"], "optimizer.lr: expected a number > 0, got 'abc'"),
        (["optimizer.lr=0"], "optimizer.lr: expected a number > 0, got 0"),
        (["trainer.max_epochs=-1"], "trainer.max_epochs: expected a whole number >= 1 or null, got -1"),
        (["trainer.max_epochs=null"], "trainer.max_epochs: set it or trainer.max_steps; both are null"),
        (["model.dropout=1.5"], "model.dropout: expected a number >= 0 and < 1, got 1.5"),
        (["model=transformer", "model.num_heads=3"], "model.num_heads: expected a divisor of model.d_model=128, got 3"),
        (["model=lstm", "data=blobs"], "model 'lstm' takes sequences (text, or an image's rows), not tabular data"),
        (["trainer.monitor=val/accuracy"], "trainer.monitor: unknown metric 'val/accuracy'; did you mean 'val/acc'?"),
        (
            ["trainer.monitor=val/loss", "trainer.mode=max"],
            "trainer.mode: expected 'min' or null, since that is the better",
        ),
        (["trainer.min_delta=0.1"], "trainer.min_delta: 0.1 does nothing while trainer.patience is null"),
        (["device=cuda"], "device: 'cuda' isn't available on this machine"),
        (["device=tpu"], "device: expected one of 'auto', 'cpu', 'cuda', 'mps', got 'tpu'"),
        (["precision=tf32", "device=cpu"], "precision: tf32 needs an NVIDIA GPU"),
        (["augment.transforms=[{Affin:{}}]"], "unknown transform 'Affin'; did you mean 'Affine'?"),
        (
            ["augment.transforms=[{CoarseDropout:{max_holes:3}}]"],
            "CoarseDropout.max_holes: unknown option (choose from fill, ",
        ),
        (
            ["augment.transforms=[{CoarseDropout:{max_holes:3}}]", "augment.backend=albumentations"],
            "CoarseDropout: Argument(s) 'max_holes' are not valid",
        ),
        (["plugins=[no_such_module]"], "plugins: can't import 'no_such_module': ModuleNotFoundError"),
        (["data=image_folder", "data.root=nowhere"], "data.root: no folder nowhere/train"),
        (["data=text_csv"], "data.file: is missing; say data.file=…"),
        (["model=mlp,cnn"], "'model=mlp,cnn' has several values; add -m"),
        (
            ["trainer.overfit_batches=2", "trainer.limit_train_batches=1"],
            "trainer.limit_train_batches: trainer.overfit",
        ),
        (["--foo"], "unrecognized arguments: --foo"),
        (["-m", "seed=1,2", "hydra.sweep.dir=/proc/x"], "hydra.sweep.dir: can't write to /proc/x"),
        (["model=mlp", "trainer.channels_last=true"], "trainer.channels_last: this model has no convolution"),
        (["seed=[1"], "can't read 'seed=[1'"),
        (["--config-dir", "nowhere"], "--config-dir: no folder"),
        (["experiment=digit_cnn"], "unknown experiment 'digit_cnn'; did you mean 'digits_cnn'?"),
        (["hydra.run.dir=/proc/x"], "hydra.run.dir: can't write to /proc/x"),
        (
            ["scheduler.warmup_epochs=100"],
            "scheduler.warmup_epochs: 2100 steps of warm-up, but the training has only 420",
        ),
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["list", "modl"], "unknown group 'modl'; did you mean 'model'?"),
        (["info", "format=xml"], "format: expected one of 'text', 'json', got 'xml'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(words: list[str], message: str, dlrun: CommandLine) -> None:
    result = dlrun(*words) if words[0] in ("list", "info", "trian") else dlrun("tracking=none", *words)
    assert result.code == 2
    assert message in result.err
    assert result.err.startswith("dlrun: ")
    assert result.err.count("\n") == 1, result.err
    assert list(dlrun.folder.iterdir()) == []


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(dlrun: CommandLine) -> None:
    assert dlrun(*QUICK, "hydra.run.dir=mine").code == 0
    before = {path: path.read_bytes() for path in (dlrun.folder / "mine").rglob("*") if path.is_file()}
    result = dlrun(*QUICK, "hydra.run.dir=mine", "seed=1")
    assert (result.code, result.err) == (2, "dlrun: hydra.run.dir: mine already holds a run; choose another folder\n")
    assert {path: path.read_bytes() for path in (dlrun.folder / "mine").rglob("*") if path.is_file()} == before


def test_bad_input_into_a_folder_of_the_users_leaves_it_as_it_was(dlrun: CommandLine) -> None:
    (dlrun.folder / "mine").mkdir()
    (dlrun.folder / "mine" / "thesis.tex").write_text("precious")
    assert dlrun(*QUICK, "hydra.run.dir=mine", "model.dropout=7").code == 2
    assert [path.name for path in (dlrun.folder / "mine").iterdir()] == ["thesis.tex"]


def test_what_a_run_would_overwrite_is_never_touched(dlrun: CommandLine) -> None:
    (dlrun.folder / "mine/checkpoints").mkdir(parents=True)
    (dlrun.folder / "mine/checkpoints/thesis.pt").write_text("precious")
    result = dlrun(*QUICK, "hydra.run.dir=mine", "optimizer.lr=abc")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "hydra.run.dir: mine already holds checkpoints" in result.err
    assert (dlrun.folder / "mine/checkpoints/thesis.pt").read_text() == "precious"


def test_of_several_that_come_for_one_folder_one_trains(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "dlrun", *QUICK, "hydra.run.dir=race"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    runs = [
        subprocess.Popen(words, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    errors = [run.communicate(timeout=120)[1].decode() for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 2, 2], errors
    assert [error.count("\n") for error in sorted(errors)] == [0, 1, 1], errors
    assert json.loads((tmp_path / "race/summary.json").read_text())["status"] == "finished"


def test_the_plugin_of_the_readme(dlrun: CommandLine) -> None:
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    code = readme.partition("```python\n# my_models.py\n")[2].partition("```")[0]
    (dlrun.folder / "my_models.py").write_text(code)
    (dlrun.folder / "mine/model").mkdir(parents=True)
    (dlrun.folder / "mine/model/mine.yaml").write_text("name: mine\nwidth: 64\n")
    words = ["model=mine", "plugins=[my_models]", "--config-dir", "mine", "trainer.ema_decay=0.9", "debug=fast"]
    result = dlrun(*words)
    assert result.code == 0, result.err
    assert dlrun.summary()["parameters"] == 64 * 64 + 64 + 640 + 10
    assert "mine" in dlrun("list", "model", "plugins=my_models", "--config-dir", "mine").out


def test_multirun_goes_on_after_a_failure_and_says_so(dlrun: CommandLine) -> None:
    result = dlrun("-m", *QUICK, "optimizer=sgd", "trainer.gradient_clip_val=null", "optimizer.lr=1e-3,1e30,1e-2")
    assert result.code == 1
    assert "[2/3] optimizer.lr=1e+30  failed: TrainingError: the training loss is" in result.out
    folders = {folder.name: json.loads((folder / "summary.json").read_text()) for folder in dlrun.runs("multirun")}
    assert {name: summary["status"] for name, summary in folders.items()} == {
        "0": "finished",
        "1": "failed",
        "2": "finished",
    }
    assert folders["1"]["exit_code"] == 1
    assert folders["2"]["command"][-1] == "optimizer.lr=0.01"
    assert len({summary["run_id"] for summary in folders.values()}) == 3


def test_multirun_that_cannot_begin_leaves_nothing(dlrun: CommandLine) -> None:
    assert dlrun("-m", "model=mlp,nope").code == 2
    result = dlrun("-m", *QUICK, "optimizer.lr=1e-3,abc,1e-2")
    assert result.code == 2
    assert "optimizer.lr: expected a number > 0, got 'abc' (job 2 of 3: optimizer.lr=abc; nothing" in result.err
    assert list(dlrun.folder.iterdir()) == []


def test_a_bug_shows_a_traceback_and_lands_in_the_log(dlrun: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    (dlrun.folder / "buggy.py").write_text(
        "from torch import nn\nfrom dlrun.registry import models\n\n"
        "class Buggy(nn.Linear):\n    def forward(self, x):\n        return x.no_such_method()\n\n"
        "@models.register('buggy')\ndef buggy(spec):\n    '''Breaks.'''\n    return Buggy(1, 1)\n"
    )
    result = dlrun("tracking=none", "model=perceptron", "model.name=buggy", "plugins=[buggy]")
    assert result.code == 1
    (folder,) = dlrun.runs()
    assert "Traceback" in (folder / "dlrun.log").read_text()
    summary = dlrun.summary()
    assert (summary["status"], summary["exit_code"]) == ("failed", 1)
    assert "no_such_method" in summary["error"]


def test_plugin_and_config_dir(dlrun: CommandLine) -> None:
    (dlrun.folder / "my_models.py").write_text(
        "from torch import nn\nfrom dlrun.registry import Count, models\n\n@models.register('mine')\n"
        "def mine(spec, *, width: Count = 4):\n    '''My own net.'''\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))\n"
    )
    (dlrun.folder / "mine" / "model").mkdir(parents=True)
    (dlrun.folder / "mine" / "model" / "mine.yaml").write_text("name: mine\nwidth: 7\n")
    words = ["--config-dir", "mine", "plugins=[my_models]", "tracking=none", "model=mine", "trainer.fast_dev_run=true"]
    assert dlrun(*words).code == 0
    assert dlrun.summary()["parameters"] == 64 * 7 + 7 + 70 + 10
    assert "My own net." in dlrun("list", "model", "plugins=my_models").out
    result = dlrun(*words, "model.width=0")
    assert (result.code, result.err) == (2, "dlrun: model.width: expected a whole number >= 1, got 0\n")


@pytest.mark.parametrize("preset", ["fast", "overfit", "profile"])
def test_debug_presets(preset: str, dlrun: CommandLine) -> None:
    small = ["model=mlp", "model.hidden_sizes=[32]", "data.batch_size=16"]
    assert dlrun(f"debug={preset}", *small).code == 0
    summary = dlrun.summary()
    if preset == "fast":
        assert (summary["epochs"], summary["steps"]) == (1, 3)
    if preset == "overfit":
        assert summary["steps"] == 100
        assert summary["best"]["val/acc"] == 1.0  # one batch, by heart
    if preset == "profile":
        events = json.loads((dlrun.runs()[-1] / "bench/trace.json").read_text())["traceEvents"]
        assert any("aten::addmm" in event.get("name", "") for event in events)
        table = (dlrun.runs()[-1] / "bench/profile.txt").read_text().splitlines()[1:8]
        calls = {line.split()[0]: int(line.split()[3]) for line in table}
        names = ["data", "forward", "backward", "optimizer", "logging", "evaluation", "checkpoint"]
        assert list(calls) == names
        assert all(number > 0 for number in calls.values()), calls


def test_hydras_own_flags_work(dlrun: CommandLine) -> None:
    shown = yaml.safe_load(dlrun("model=mlp", "--cfg", "job").out)
    assert shown["model"]["name"] == "mlp"
    assert "data@data" in dlrun("--info", "defaults").out or "digits" in dlrun("--info", "defaults").out
    assert "Hydra" in dlrun("--hydra-help").out
    assert dlrun("--version").out.startswith("dlrun ")
    for words in ([], ["train"], ["list"]):
        assert dlrun(*words, "--help").out.startswith("dlrun: a config-driven experiment runner")
    assert list(dlrun.folder.iterdir()) == []


def test_completion(dlrun: CommandLine) -> None:
    def complete(line: str) -> list[str]:
        dlrun.monkeypatch.setitem(os.environ, "COMP_LINE", line)
        dlrun.monkeypatch.setitem(os.environ, "COMP_POINT", str(len(line)))
        return dlrun("-sc", "query=bash").out.split()

    assert complete("dlrun model=c") == ["model=cnn"]
    assert complete("dlrun info model=l") == ["model=lstm"]
    assert "trainer.max_epochs=" in complete("dlrun model=cnn trainer.max_")
    assert complete("dlrun li") == ["list"]
    assert "-F hydra_bash_completion dlrun" in dlrun("-sc", "install=bash").out


def test_an_installed_package_offers_its_models(dlrun: CommandLine) -> None:
    (dlrun.folder / "my_models.py").write_text(
        "from torch import nn\nfrom dlrun.registry import models\n\n@models.register('offered')\n"
        "def offered(spec):\n    '''From a package.'''\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    package = dlrun.folder / "offering-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[dlrun.plugins]\noffering = my_models\n")
    assert "From a package." in dlrun("list", "model").out
    assert dlrun("model=perceptron", "model.name=offered", "debug=fast").code == 0
    assert dlrun.summary()["parameters"] == 650


def test_what_only_shows_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom dlrun.cli import dispatch\n"
        "os.environ.update(COMP_LINE='dlrun model=', COMP_POINT='12')\n"
        "for words in (['--help'], ['--version']):\n    dispatch(words)\n"
        "assert 'hydra' not in sys.modules\n"
        "for words in (['list'], ['--cfg', 'job'], ['-sc', 'query=bash']):\n    dispatch(words)\n"
        "heavy = {'torch', 'torchvision', 'albumentations', 'wandb', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
