"""What all tests share."""

from __future__ import annotations

import logging
import os

# Before torch is imported, here and in the processes that tests start: on tensors this small a second thread is only
# one more to wait for, and on a busy machine that makes minutes of seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from trained import train_each_kind

from dlrun.registry import models
from dlrun.tracking.terminal import LogFile

CONF = Path(__file__).resolve().parent.parent / "conf"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is cached by the tests, and by the processes that they start, isn't the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def no_log_of_a_run_that_is_over() -> Iterator[None]:
    """A command ends with its process; here the next test would go on writing into the dlrun.log of the one before."""
    logging.captureWarnings(False)  # or a second one would be taken for done already
    yield
    logging.captureWarnings(False)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LogFile)]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture
def compose_config() -> Callable[..., dict[str, Any]]:
    """compose_config("model=mlp", "seed=1") is the config that `dlrun model=mlp seed=1` would train with, as a dict."""

    def composed(*overrides: str) -> dict[str, Any]:
        GlobalHydra.instance().clear()  # a test before this one may have left one behind
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            whole = OmegaConf.to_container(
                compose("config", ["plots=false", *overrides]), resolve=True, throw_on_missing=True
            )
            del whole["sweep"]  # of the command, not of a run
            return whole

    return composed


@pytest.fixture
def dlrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    assert all(models[name] for name in models.names())  # imported, and what a test's plugin adds goes with the test
    monkeypatch.setattr(models, "_builders", dict(models._builders))
    return CommandLine(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small trained runs in it, one for each kind of data; made once, and not to be changed."""
    folder = tmp_path_factory.mktemp("small_runs")
    train_each_kind(folder)
    return folder
