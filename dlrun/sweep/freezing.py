"""From a job's words to a job that nothing changes any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlrun.differences import changed
from dlrun.identity import key
from dlrun.runfolder import new_run_id
from dlrun.sweep.composition import Composer, subdir
from dlrun.sweep.folder import FrozenJob


def freeze(
    composer: Composer,
    overrides: Sequence[str],
    number: int,
    swept: Sequence[str],
    naming: Mapping[str, Any],
    trial: int | None = None,
) -> FrozenJob:
    """The job of `overrides`. Its config's tags gain the words that are `swept` over. Raises UserError.

    `naming` says how jobs' folders are called: `subdir`, and `override_dirname`, as Hydra's config has them.
    """
    config, base = composer.composed(overrides)
    differs = None if base.defaults is None else changed(config, base.choices, base.defaults)
    asked = [word for word in overrides if word_key(word) in swept]
    if isinstance(config.get("tags"), list):
        config["tags"] = [*config["tags"], *(word for word in asked if word not in config["tags"])]
    return FrozenJob(
        number=number,
        key=key(config, swept),
        run_id=new_run_id(),
        folder=subdir(naming["subdir"], naming["override_dirname"], number, overrides),
        overrides=list(overrides),
        choices=base.choices,
        changed=differs,
        config=config,
        label=" ".join(asked or overrides) or "defaults",
        trial=trial,
        command=["dlrun", *overrides],
    )


def word_key(word: str) -> str:
    """The key of an override, without what Hydra writes before it."""
    return word.partition("=")[0].lstrip("+~")
