"""What a training would refuse, a rehearsal refuses, without training; and what configs share is built once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from dlrun import rehearsal as module
from dlrun.errors import UserError
from dlrun.registry import models
from dlrun.rehearsal import Rehearsal

Composed = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.lr=abc"], r"optimizer\.lr: expected a number > 0, got 'abc'"),
        (["+optimizer.lrr=1"], r"optimizer\.lrr: unknown option"),
        (["model=mlp", "model.hidden_sizes=[0]"], r"model\.hidden_sizes"),
        (["model=transformer", "model.num_heads=7"], "model"),
        (["scheduler=polynomial", "scheduler.warmup_steps=100000"], r"scheduler\.warmup_steps"),
        (["trainer.monitor=val/f1"], r"trainer\.monitor: unknown metric 'val/f1'"),
        (["augment=standard", "data=breast_cancer", "model=mlp"], "augment: transforms are for images"),
        (["trainer.limit_train_batches=0.001"], r"trainer\.limit_train_batches"),
        (["data=image_folder", "data.root=nowhere"], "data"),
        (["plugins=[no_such_module]"], "plugins: can't import 'no_such_module'"),
        (["init_from=nowhere"], "init_from"),
        (["trainer.freeze={no_such_part:1}"], r"trainer\.freeze"),
        (["trainer.channels_last=true", "model=mlp"], r"trainer\.channels_last"),
        (["task.class_weights=[1,2]"], r"task\.class_weights: expected 10 weights, got 2"),
        (["trainer.tta=flip", "data=breast_cancer", "model=mlp", "augment=none"], r"trainer\.tta"),
    ],
)
def test_what_a_training_would_refuse(compose_config: Composed, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rehearsal().check(compose_config(*words))


def test_a_tracker_that_isnt_installed(compose_config: Composed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    config = compose_config("tracking=tensorboard", "data=breast_cancer", "model=perceptron", "augment=none")
    with pytest.raises(UserError, match="tracking=tensorboard needs TensorBoard"):
        Rehearsal().check(config)
    Rehearsal(elsewhere=True).check(config)  # where the jobs run it may be there


def test_what_configs_share_is_built_once(compose_config: Composed, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    for name in ("build_source", "build_model", "build_optimizer"):
        real = getattr(module, name)

        def counted(*args: Any, name: str = name, real: Any = real) -> Any:
            built.append(name)
            return real(*args)

        monkeypatch.setattr(module, name, counted)
    rehearsal = Rehearsal()
    for model in ("mlp", "cnn"):
        for lr in (1e-3, 1e-2):
            for seed in (0, 1, 2):
                assert rehearsal.check(compose_config(f"model={model}", f"optimizer.lr={lr}", f"seed={seed}")) == "max"
    assert {name: built.count(name) for name in set(built)} == {
        "build_source": 1,
        "build_model": 2,
        "build_optimizer": 4,
    }


def test_config_alone_reads_no_data_and_a_first_batch_is_trained_on(
    compose_config: Composed, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    assert all(models[name] for name in models.names())  # imported, so that what is added goes with the test
    nowhere = compose_config("data=image_folder", "data.root=nowhere", "trainer.monitor=val/loss")
    assert Rehearsal("config").check(nowhere) == "min"
    (tmp_path / "late.py").write_text(
        "from torch import nn\nfrom dlrun.registry import models\n\n"
        "@models.register('late')\ndef late(spec):\n    '''Doesn't fit, as the first batch shows.'''\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(63, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(models, "_builders", dict(models._builders))
    config = compose_config("model=perceptron", "model.name=late", "plugins=[late]")
    assert Rehearsal("build").check(config) == "max"
    with pytest.raises(UserError, match=r"the first batch fails: RuntimeError: .*mat1 and mat2 shapes"):
        Rehearsal("batch").check(config)
    assert Rehearsal("batch").check(compose_config("model=mlp", "data=breast_cancer", "augment=none")) == "max"


def test_elsewhere_this_machines_devices_say_nothing(compose_config: Composed) -> None:
    config = compose_config("device=mps", "precision=fp16")
    with pytest.raises(UserError, match="device: 'mps' isn't available"):
        Rehearsal().check(config)
    assert Rehearsal(elsewhere=True).check(config) == "max"
