"""`dlrun.load_run`: a folder's model answers as it did when it was trained, and nothing in the folder is executed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import CommandLine

import dlrun as package
from dlrun import checkpoint
from dlrun.build import build_model
from dlrun.config import parse
from dlrun.errors import UserError
from dlrun.models.zoo import weights_from_checkpoint
from dlrun.registry import models
from dlrun.spec import DataSpec

QUICK = ["tracking=none", "augment=none", "trainer.max_epochs=2", "hydra.run.dir=run"]
WORDS = ["data=pydocs", "data.max_length=12", "data.limit=200"]
SMALL = ["model=mlp", "model.hidden_sizes=[16]", "data=breast_cancer"]


def in_summary(folder: Path) -> dict[str, float]:
    return dict(json.loads((folder / "summary.json").read_text())["test"])


@pytest.mark.parametrize(
    "words",
    [
        [*SMALL, "trainer.ema_decay=0.9"],
        [*SMALL, "precision=bf16", "task.label_smoothing=0.1", "task.class_weights=balanced"],
        ["model=cnn", "model.channels=[4,8]", "model.hidden_size=16", "data=digits", "trainer.tta=flip_shift"],
        ["model=lstm", "model.hidden_size=8", *WORDS],
        ["model=transformer", "model.d_model=16", "data=digits", "trainer.limit_test_batches=1"],
        ["model=transformer", "model.d_model=16", *WORDS, "precision=bf16_weights", "trainer.ema_decay=0.5"],
    ],
    ids=lambda words: words[0],
)
def test_the_loaded_run_has_the_numbers_that_it_was_tested_with(words: list[str], dlrun: CommandLine) -> None:
    assert dlrun(*QUICK, *words).code == 0
    run = package.load_run("run")
    assert run.evaluator().evaluate(run.batches("test"), "test") == in_summary(dlrun.folder / "run")
    assert not run.model.training
    assert run.network is run.model


def test_the_averaged_weights_are_those_that_answer(dlrun: CommandLine) -> None:
    assert dlrun(*QUICK, *SMALL, "trainer.ema_decay=0.5").code == 0
    run, state = package.load_run("run"), torch.load("run/checkpoints/best.pt", weights_only=True)
    for name, average in zip(state["ema"]["names"], state["ema"]["average"], strict=True):
        assert torch.equal(run.network.get_parameter(name), average)
    assert not torch.equal(run.network.get_parameter("1.weight"), state["model"]["1.weight"])


def test_last_is_another_checkpoint(dlrun: CommandLine) -> None:
    assert dlrun(*QUICK, *SMALL).code == 0
    assert package.load_run("run", "last").progress["epoch"] == 2
    (dlrun.folder / "run/checkpoints/best.pt").unlink()
    with pytest.raises(UserError, match=r"checkpoint=best: no run/checkpoints/best.pt; checkpoint=last is there"):
        package.load_run("run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be copied."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["dlrun", *QUICK, *SMALL])
        from dlrun.cli import main

        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_three_lines_are_enough_without_the_data(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*args: Any, **options: Any) -> Any:
        raise UserError("data: it is gone")

    monkeypatch.setattr("dlrun.loading.build_source", gone)
    loaded = package.load_run(run)
    assert loaded.class_names == ("malignant", "benign")
    with torch.inference_mode():
        assert loaded.model(loaded.prepare(torch.zeros(3, 30))).shape == (3, 2)
    with pytest.raises(UserError, match="it is gone"):
        loaded.batches("test")


def test_loading_leaves_the_random_numbers_and_threads_of_its_caller_alone(run: Path) -> None:
    torch.manual_seed(5)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(5)
    package.load_run(run)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


def edit(run: Path, **changes: Any) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | changes))


def test_what_can_not_be_loaded_is_one_line(run: Path, tmp_path: Path) -> None:
    def refused(message: str, *args: Any) -> None:
        with pytest.raises(UserError) as error:
            package.load_run(*args)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    (tmp_path / "empty").mkdir()
    refused("no run in empty: it has no summary.json", "empty")
    refused("run: no folder 'rum'; did you mean 'run'?", "rum")
    refused("checkpoint: expected one of 'best', 'last', got 'worst'", "run", "worst")
    refused(
        "model.hidden_sizes: is what it is for a run that was trained with it",
        "run",
        "best",
        ["model.hidden_sizes=[3]"],
    )
    best = run / "checkpoints/best.pt"
    whole = best.read_bytes()
    best.write_bytes(whole[: len(whole) // 2])
    refused("the checkpoint run/checkpoints/best.pt is damaged", "run")
    best.write_bytes(whole)
    edit(run, model={"name": "mlp", "hidden_sizes": [5], "dropout": 0.0, "activation": "relu", "batch_norm": False})
    refused("run/checkpoints/best.pt doesn't fit the model of run/config.yaml", "run")
    shutil.rmtree(run / "checkpoints")
    refused("checkpoint=best: no run/checkpoints/best.pt; the run is finished", "run")
    edit(run, plugins=["antigravity"])
    refused("say so: plugins=[antigravity]", "run")


def test_a_spec_that_makes_no_sense_is_refused(run: Path) -> None:
    best = run / "checkpoints/best.pt"
    state = torch.load(best, weights_only=True)
    torch.save(state | {"spec": {"shape": [3], "colour": "red"}}, best)
    with pytest.raises(UserError, match="doesn't say what its data was"):
        package.load_run(run)


def test_a_gpu_is_no_part_of_what_is_loaded(run: Path) -> None:
    edit(run, device="cuda", precision={"name": "tf32"})
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    loaded = package.load_run(run)
    assert (loaded.device.type, type(loaded.precision).__name__) == ("cpu", "Precision")


@pytest.mark.parametrize("arch", ["resnet18", "googlenet", "squeezenet1_1"])
def test_pretrained_nets_are_built_without_their_weights(arch: str, compose_config: Any) -> None:
    """Of the same tensors as the net that was trained: torchvision's own, with its head and first layer replaced."""
    import torchvision.models as zoo

    spec = DataSpec("image", (3, 64, 64), tuple("abc"), (0.5,) * 3, (0.5,) * 3)
    config = parse(compose_config("model=torchvision", f"model.arch={arch}", "model.pretrained=true"))
    with weights_from_checkpoint():
        net = build_model(config, spec)
    extra = {"aux_logits": False, "init_weights": False, "transform_input": True} if arch == "googlenet" else {}
    reference = zoo.get_model(arch, weights=None, num_classes=3, **extra)
    assert {n: t.shape for n, t in net.state_dict().items()} == {n: t.shape for n, t in reference.state_dict().items()}
    reference.load_state_dict(net.state_dict())
    pictures = torch.randn(2, 3, 64, 64)
    assert torch.equal(net.eval()(pictures), reference.eval()(pictures))


def test_a_compressed_run_downloads_nothing_either(compose_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights lie in its folder."""

    def refused(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refused)
    spec = DataSpec("image", (3, 64, 64), tuple("abc"), (0.5,) * 3, (0.5,) * 3)
    plain = compose_config("model=torchvision", "model.arch=resnet18", "model.pretrained=true")
    with pytest.raises(UserError, match="no network"):
        build_model(parse(plain), spec)
    build_model(parse(plain | {"compression": {"method": "prune_unstructured", "parent": "abcdefgh"}}), spec)


def test_every_model_that_dlrun_has_is_loaded_as_any_other() -> None:
    assert len(models.names()) == 9  # none of them needs a word of its own in loading.py


def test_a_checkpoint_is_read_once_and_its_tensors_let_go(run: Path) -> None:
    loaded = package.load_run(run)
    assert "model" not in loaded.state
    assert loaded.state.keys() >= {"progress", "data", "run_id"}
    assert checkpoint.load(loaded.checkpoint)["run_id"] == loaded.run_id
