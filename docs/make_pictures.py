"""README's pictures, made by dlrun's own commands from real runs: `make pictures`, some two minutes on two cores.

Pages are photographed by Chromium, which has to be installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PLACE = Path(__file__).parent / "pictures"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PLAIN = ("tracking=none", "trainer.enable_progress_bar=false")


def dlrun(folder: Path, *words: str) -> str:
    print("dlrun", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "dlrun", *words], cwd=folder, text=True, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"dlrun {' '.join(words)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def kept(source: Path, name: str, width: int = 1100) -> None:
    """The picture, not wider than `width` pixels."""
    with Image.open(source) as picture:
        image = picture.convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image.save(PLACE / f"{name}.png", optimize=True)


def photographed(page: Path, name: str, section: str, height: int) -> None:
    """An HTML page from `section` on, as a browser shows it."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        if chromium is None:
            sys.exit("Chromium isn't installed: reports can't be photographed")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        shown = browser.new_page(viewport={"width": 1100, "height": height})
        shown.goto(f"{page.as_uri()}#{section}")
        shown.wait_for_timeout(1500)
        shot = page.with_suffix(".png")
        shown.screenshot(path=shot)
        browser.close()
    kept(shot, name)


def main() -> None:
    PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for recipe in ("digits_cnn", "pydocs_lstm", "pydocs_transformer"):
            dlrun(folder, f"experiment={recipe}", f"hydra.run.dir={recipe}", *PLAIN)
        cnn, lstm, transformer = (folder / name for name in ("digits_cnn", "pydocs_lstm", "pydocs_transformer"))
        kept(cnn / "plots" / "curves.png", "curves")
        kept(lstm / "plots" / "mistakes.png", "mistakes")
        dlrun(folder, "plot", "gradcam", "run=digits_cnn")
        kept(cnn / "plots" / "gradcam.png", "gradcam")
        dlrun(folder, "plot", "attention", "run=pydocs_transformer")
        kept(transformer / "plots" / "attention.png", "attention")
        dlrun(folder, "plot", "kernel", "out=kernel.png")
        kept(folder / "kernel.png", "kernel")
        dlrun(folder, "plot", "schedules", "trainer.max_epochs=100", "out=schedules.png")
        kept(folder / "schedules.png", "schedules")
        dlrun(folder, "report", "run=digits_cnn", "out=report.html")
        photographed(folder / "report.html", "report", "curves", 900)
        swept = ("model=mlp,cnn", "optimizer.lr=1e-4,1e-3,1e-2", "seed=range(3)", "trainer.max_epochs=8")
        dlrun(folder, "-m", *swept, "hydra.sweep.dir=sweep", "hydra.launcher.jobs=2", *PLAIN)
        dlrun(folder, "report", "runs=sweep", "out=comparison.html")
        photographed(folder / "comparison.html", "comparison", "runs", 900)
    size = sum(picture.stat().st_size for picture in PLACE.glob("*.png"))
    print(f"{len(list(PLACE.glob('*.png')))} pictures, {size / 1024:,.0f} KiB")


if __name__ == "__main__":
    main()
