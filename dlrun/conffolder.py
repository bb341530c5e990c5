"""Where the configs are."""

from __future__ import annotations

from pathlib import Path

from dlrun.errors import UserError


def conf_folder() -> Path:
    """`conf/` inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    for folder in (package / "conf", package.parent / "conf"):
        if folder.is_dir():
            return folder
    raise UserError(f"the configs of dlrun are missing: no {package / 'conf'}; install it again")
