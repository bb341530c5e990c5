from __future__ import annotations

import pytest

from dlrun.errors import OptionError, RunFailed, UserError, choices

MODELS = ["transformer", "cnn", "mlp", "lstm"]  # not sorted


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("cn", MODELS, "; did you mean 'cnn'? (choose from cnn, lstm, mlp, transformer)"),
        ("transfomer", MODELS, "; did you mean 'transformer'? (choose from cnn, lstm, mlp, transformer)"),
        ("tr", MODELS, "; did you mean 'transformer'? (choose from cnn, lstm, mlp, transformer)"),  # a short prefix
        ("xyz", MODELS, " (choose from cnn, lstm, mlp, transformer)"),
        ("", MODELS, " (choose from cnn, lstm, mlp, transformer)"),  # begins every name, and means none
        ("lr", {"lr_decay": 1, "blr": 2}, "; did you mean 'blr'? (choose from blr, lr_decay)"),  # near before prefix
        ("cnn", [], ""),
        ("cnn", iter(["mnn"]), "; did you mean 'mnn'? (choose from mnn)"),
    ],
)
def test_choices(word, known, said):
    assert choices(word, known) == said


def test_option_error_is_a_users_error_and_a_failed_run_is_not():
    assert str(OptionError("size", "too large")) == "size: too large"
    assert isinstance(OptionError("size", "too large"), UserError)
    failed = RunFailed("out of memory", 1)
    assert (str(failed), failed.exit_code) == ("out of memory", 1)
    assert not isinstance(failed, UserError)
