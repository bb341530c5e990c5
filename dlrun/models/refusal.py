"""What a model says to data that it makes no sense for."""

from dlrun.errors import UserError
from dlrun.spec import DataSpec


def refuse(spec: DataSpec, model: str, takes: str, instead: str) -> UserError:
    """The error for a model that makes no sense on this kind of data."""
    return UserError(
        f"model '{model}' takes {takes}, not {spec.modality} data; for {spec.modality} data choose {instead}"
    )
