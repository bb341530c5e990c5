"""The wheel: installed somewhere else, it finds its configs and trains."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_wheel_trains_outside_the_checkout(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Without build isolation: hatchling is among the development dependencies, and nothing is downloaded.
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("dlrun-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".yaml")}
    assert packed == {f"dlrun/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")}
    assets = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("dlrun/report/assets/")}
    folder = ROOT / "dlrun/report/assets"
    assert assets == {str(path.relative_to(ROOT)) for path in folder.rglob("*") if path.is_file()}
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    # What a path file of an editable install adds stands behind PYTHONPATH.
    env = {**os.environ, "PYTHONPATH": str(site)}
    code = "import dlrun; print(dlrun.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=env, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(site / "dlrun/__init__.py")
    words = ["data=digits", "trainer.max_epochs=1", "tracking=none"]
    done = subprocess.run(
        [sys.executable, str(site / "bin/dlrun"), *words], cwd=elsewhere, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test   test/loss" in done.stdout
