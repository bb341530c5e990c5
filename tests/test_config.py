from __future__ import annotations

import copy

import pytest

from dlrun.config import Named, OptimizerConfig, TensorboardConfig, WandbConfig, parse
from dlrun.errors import UserError


def test_the_default_config_has_its_types(compose_config):
    plain = compose_config("model=mlp", "optimizer=sgd", "scheduler=cosine", "scheduler.warmup_epochs=0.5", "seed=3")
    before = copy.deepcopy(plain)
    config = parse(plain)
    assert plain == before
    assert (config.seed, config.device, config.plugins, config.tags, config.notes) == (3, "auto", [], [], None)
    assert config.optimizer == Named(
        name="sgd", options={"lr": 0.1, "weight_decay": 5e-4, "momentum": 0.9, "nesterov": True}
    )
    assert config.optimization == OptimizerConfig()
    # What all share is split from what is the dataset's or the scheduler's own.
    assert config.dataset == Named(name="digits", options={"image_size": None, "test_fraction": 0.2})
    assert (config.data.root, config.data.batch_size, config.data.val_fraction) == ("data", 64, 0.1)
    assert config.scheduler == Named(name="cosine", options={"min_lr": 0.0})
    assert (config.schedule.warmup_steps, config.schedule.warmup_epochs) == (0, 0.5)
    assert (config.trainer.max_epochs, config.trainer.monitor) == (20, "val/acc")
    assert config.augment.mixup == 0
    assert config.tracking.wandb == WandbConfig(project="dlrun", mode="auto", init_timeout=30.0)
    assert config.tracking.tensorboard is None


def test_trackers_that_are_on(compose_config):
    both = parse(compose_config("tracking=[wandb,tensorboard]")).tracking
    assert (both.wandb, both.tensorboard) == (WandbConfig(), TensorboardConfig())
    none = parse(compose_config("tracking=none")).tracking
    assert (none.wandb, none.tensorboard) == (None, None)
    assert parse(compose_config("tracking.wandb=null")).tracking.wandb is None


WHOLE = "a whole number >= 1"
LIMIT = f"{WHOLE} or a number > 0 and <= 1 or null"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # types: nothing is converted
        ("trainer.max_epochs=ten", f"trainer.max_epochs: expected {WHOLE} or null, got 'ten'"),
        ("trainer.max_epochs='3'", f"trainer.max_epochs: expected {WHOLE} or null, got '3'"),
        ("trainer.max_epochs=2.0", f"trainer.max_epochs: expected {WHOLE} or null, got 2.0"),
        ("trainer.max_steps=true", f"trainer.max_steps: expected {WHOLE} or null, got True"),
        ("trainer.deterministic=1", "trainer.deterministic: expected true or false, got 1"),
        ("trainer.profile=null", "trainer.profile: expected true or false, got None"),
        ("trainer.monitor=[val/acc]", "trainer.monitor: expected a text, got ['val/acc']"),
        ("trainer.fast_dev_run=0", f"trainer.fast_dev_run: expected true or false or {WHOLE}, got 0"),
        ("data.root=null", "data.root: expected a text, got None"),
        ("data.num_workers=two", "data.num_workers: expected a whole number >= 0 or one of 'auto', got 'two'"),
        ("augment.transforms=light", "augment.transforms: expected a list, each any value, got 'light'"),
        ("tags=baseline", "tags: expected a list, each a text, got 'baseline'"),
        ("tags=[1]", "tags: expected a list, each a text, got [1]"),
        ("plugins=mine", "plugins: expected a list, each a text, got 'mine'"),
        ("notes=5", "notes: expected a text or null, got 5"),
        ("tracking.wandb=yes_please", "tracking.wandb: expected a mapping or null, got 'yes_please'"),
        # ranges
        ("seed=-1", "seed: expected a whole number >= 0"),
        ("data.batch_size=0", f"data.batch_size: expected {WHOLE}, got 0"),
        ("data.val_fraction=1", "data.val_fraction: expected a number > 0 and < 1, got 1"),
        ("data.val_fraction=nan", "data.val_fraction: expected a number > 0 and < 1, got nan"),
        ("data.limit=0", f"data.limit: expected {WHOLE} or null, got 0"),
        ("augment.mixup=-0.2", "augment.mixup: expected a number >= 0, got -0.2"),
        ("augment.cutmix=inf", "augment.cutmix: expected a number >= 0, got inf"),
        ("optimizer.l1=-1", "optimizer.l1: expected a number >= 0, got -1"),
        ("scheduler.warmup_steps=0.5", "scheduler.warmup_steps: expected a whole number >= 0, got 0.5"),
        ("trainer.ema_decay=1.0", "trainer.ema_decay: expected a number > 0 and < 1 or null, got 1.0"),
        ("trainer.gradient_clip_val=0", "trainer.gradient_clip_val: expected a number > 0 or null, got 0"),
        ("trainer.limit_val_batches=1.5", f"trainer.limit_val_batches: expected {LIMIT}, got 1.5"),
        ("trainer.overfit_batches=0", f"trainer.overfit_batches: expected {LIMIT}, got 0"),
        ("tracking.wandb.init_timeout=0", "tracking.wandb.init_timeout: expected a number > 0, got 0"),
        # choices
        ("device=gpu", "device: expected one of 'auto', 'cpu', 'cuda', 'mps', got 'gpu'"),
        ("trainer.mode=maximum", "trainer.mode: expected one of 'min', 'max' or null, got 'maximum'"),
        (
            "trainer.channels_last=yes_please",
            "trainer.channels_last: expected true or false or one of 'auto', got 'yes_",
        ),
        (
            "trainer.compile=fast",
            "trainer.compile: expected true or false or one of 'default', 'reduce-overhead', 'max-autotune', 'max-aut",
        ),
        ("tracking.wandb.mode=on", "tracking.wandb.mode: expected one of 'auto', 'online', 'offline', got 'on'"),
        # keys that aren't there
        (
            "+trainer.epochs=5",
            "trainer.epochs: unknown option; did you mean 'max_epochs'? (choose from accumulate_grad_b",
        ),
        (
            "+augment.mixupp=1",
            "augment.mixupp: unknown option; did you mean 'mixup'? (choose from backend, cutmix, mixup, transforms)",
        ),
        ("+tracking.mlflow={}", "tracking.mlflow: unknown option (choose from tensorboard, wandb)"),
        (
            "+tracking.wandb.team=x",
            "tracking.wandb.team: unknown option (choose from entity, init_timeout, log_model, log_report, mode",
        ),
        ("+tracking.tensorboard={on: 1}", "tracking.tensorboard.on: unknown option"),
        (
            "+sed=1",
            "sed: unknown option; did you mean 'seed'? "
            "(choose from device, init_from, notes, plots, plugins, seed, tags)",
        ),
        # keys that are missing
        ("~data.batch_size", f"data.batch_size: is missing; expected {WHOLE}"),
        ("~augment.transforms", "augment.transforms: is missing; expected a list, each any value"),
        ("~seed", "seed: is missing; expected a whole number >= 0"),
        ("~model.name", "model.name: expected a text, got None"),
        ("~model", "model: expected a config group, got None"),
        ("precision=fp32 precision.name=16", "precision.name: expected a text, got 16"),
        # together
        ("trainer.max_epochs=null", "trainer.max_epochs: set it or trainer.max_steps; both are null"),
        (
            "scheduler.warmup_steps=5 scheduler.warmup_epochs=1",
            "scheduler.warmup_epochs: set it or scheduler.warmup_steps, not both; got 1 and 5",
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_key(compose_config, override, message):
    words = [override] if "{" in override else override.split()
    with pytest.raises(UserError) as caught:
        parse(compose_config(*words))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
