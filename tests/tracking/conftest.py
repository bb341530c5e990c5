from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from wandb_server import API_KEY, WandbServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    """Credentials and a server for them; nothing from outside."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        yield server
        wandb.teardown()
