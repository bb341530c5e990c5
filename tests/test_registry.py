from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, MinLen

from dlrun.errors import OptionError, UserError
from dlrun.registry import (
    REGISTRIES,
    Count,
    Fraction,
    Index,
    NonNegative,
    Positive,
    Ratio,
    Registry,
    Share,
    Size,
    check_options,
    check_value,
    describe,
)

NAMES = {
    "model": "cnn lstm mlp perceptron rnn speednet timm torchvision transformer",
    "data": "blobs breast_cancer cifar10 cifar100 digits fake fashion_mnist image_folder mnist pydocs text_csv",
    "task": "classification",
    "optimizer": "adadelta adafactor adagrad adam adamw muon nadam radam rmsprop sgd",
    "scheduler": "cosine exponential linear multistep none onecycle plateau polynomial step warm_restarts",
    "precision": "bf16 bf16_weights fp16 fp32 tf32",
}

INF, NAN = float("inf"), float("nan")
Weights = Literal["balanced"] | Annotated[list[NonNegative], MinLen(2)] | None

# annotation, what it is called, what it takes, what it refuses
CHECKS = [
    (Count, "a whole number >= 1", [1, 2**63 - 1], [0, -1, 1.0, 0.5, "3", True, None, NAN, [1], ""]),
    (Index, "a whole number >= 0", [0, 7], [-1, 0.0, False, "0", None]),
    (int, "a whole number", [-3, 0], [3.0, "3", True]),
    (Positive, "a number > 0", [3, 1e-9], [0, 0.0, -1, "3", "1e-3", True, None, NAN, INF, [1.0]]),
    (NonNegative, "a number >= 0", [0, 2.5], [-1e-9, NAN, INF, "0", False]),
    (Fraction, "a number >= 0 and < 1", [0, 0.999], [1, -0.1, NAN]),
    (Share, "a number > 0 and < 1", [0.5], [0, 1, 1.0]),
    (Ratio, "a number >= 0 and <= 1", [0, 1], [1.01, -0.01]),
    (float, "a number", [3, -0.5], ["0.5", True, NAN, INF, -INF]),
    (bool, "true or false", [True, False], [0, 1, "true", None, 1.0]),
    (str, "a text", ["", "x"], [3, True, None, ["x"]]),
    (Any, "any value", [None, 3, "x", [NAN]], []),
    (Count | None, "a whole number >= 1 or null", [None, 1], [0, "null", False]),
    (Literal["min", "max"], "one of 'min', 'max'", ["min"], ["mini", "", None, 0, True]),
    (bool | Literal["auto"], "true or false or one of 'auto'", [True, "auto"], ["true", 1, None]),
    (Count | Annotated[float, Ge(0)], "a whole number >= 1 or a number >= 0", [2, 0.5], ["2", True, -0.5]),
    (list[Count], "a list, each a whole number >= 1", [[], [1, 2]], [(1, 2), [1, "2"], [1, 0], "12", 1, [True], {}]),
    (
        Size,
        "a list, each a whole number >= 1, 2 or more of them and at most 2",
        [[2, 3]],
        [[2], [1, 2, 3], 2, [2, 0.5]],
    ),
    (
        Weights,
        "one of 'balanced' or a list, each a number >= 0, 2 or more of them or null",
        ["balanced", [0, 1.5], None],
        ["uniform", [1], [1, "1"], [1, NAN], 1],
    ),
    (dict[str, Any], "a mapping", [{}, {"a": 1}], [[], "a", None, {1: 2}]),
]
TAKEN = [(annotation, value) for annotation, _, taken, _ in CHECKS for value in taken]
REFUSED = [(annotation, words, value) for annotation, words, _, refused in CHECKS for value in refused]


@pytest.mark.parametrize(("annotation", "value"), TAKEN, ids=repr)
def test_value_is_taken_as_it_is(annotation, value):
    check_value(value, annotation, "key")


@pytest.mark.parametrize(("annotation", "words", "value"), REFUSED, ids=repr)
def test_value_is_refused_in_words(annotation, words, value):
    with pytest.raises(UserError) as caught:
        check_value(value, annotation, "model.key")
    assert str(caught.value) == f"model.key: expected {words}, got {value!r}"


@pytest.mark.parametrize(("annotation", "words"), [(annotation, words) for annotation, words, *_ in CHECKS], ids=repr)
def test_describe(annotation, words):
    assert describe(annotation) == words


def builder(given: str, *, size: Count, rate: Positive = 0.1) -> tuple[str, int, float]:
    """A thing."""
    if size > 9:
        raise OptionError("size", f"expected at most 9, got {size}")
    return given, size, rate


class Builder:
    def __init__(self, given: str, *, size: Count, rate: Positive = 0.1):
        raise NotImplementedError


@pytest.mark.parametrize("built", [builder, Builder])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1, "rat": 0.5}, "thing.rat: unknown option; did you mean 'rate'? (choose from rate, size)"),
        ({"size": 1, "given": "x"}, "thing.given: unknown option (choose from rate, size)"),  # ours, by position
        ({"rate": 0.5}, "thing.size: is missing; expected a whole number >= 1"),
        ({"size": "1"}, "thing.size: expected a whole number >= 1, got '1'"),
        ({"size": 1, "rate": None}, "thing.rate: expected a number > 0, got None"),
    ],
)
def test_options_are_held_against_the_signature(built, options, message):
    with pytest.raises(UserError) as caught:
        check_options(built, options, "thing")
    assert str(caught.value) == message


def test_options_of_the_top_level_have_no_prefix():
    with pytest.raises(UserError, match=r"^rat: unknown option"):
        check_options(builder, {"rat": 1}, "")


@pytest.fixture
def things(tmp_path, monkeypatch, request):
    """A registry whose home is a package of two modules, imported when a builder is asked for."""
    home = f"things_{abs(hash(request.node.nodeid))}"
    package = tmp_path / home
    package.mkdir()
    imports = "from dlrun.errors import OptionError\nfrom test_registry_home import registry\n"
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(imports + "@registry.register('ball')\ndef ball(a, *, r=1):\n  '''Round.'''\n")
    (package / "two.py").write_text(
        imports + "@registry.register('cube')\nclass Cube:\n  '''Has corners.\n\n  Eight.'''\n"
        "  def __init__(self, given, *, side: int = 1):\n"
        "    if side > 9: raise OptionError('side', f'too long: {side}')\n"
        "    self.made = given, side\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("thing", home)
    monkeypatch.setitem(sys.modules, "test_registry_home", type(sys)("test_registry_home"))
    sys.modules["test_registry_home"].registry = registry
    yield registry
    for name in [name for name in sys.modules if name.partition(".")[0] == home]:
        del sys.modules[name]


def test_listing_reads_and_building_imports(things):
    assert things.summaries() == {"ball": "Round.", "cube": "Has corners."}
    assert f"{things.home}.two" not in sys.modules
    assert things.build("cube", {"side": 3}, "given").made == ("given", 3)
    assert things.build("cube", {}, "given").made == ("given", 1)
    assert f"{things.home}.two" in sys.modules
    assert f"{things.home}.one" not in sys.modules
    assert things.summaries() == {"ball": "Round.", "cube": "Has corners."}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cub", {}, "unknown thing 'cub'; did you mean 'cube'? (choose from ball, cube)"),
        ("xyz", {}, "unknown thing 'xyz' (choose from ball, cube)"),
        ("cube", {"sides": 3}, "thing.sides: unknown option; did you mean 'side'? (choose from side)"),
        ("cube", {"side": 10}, "thing.side: too long: 10"),  # the builder's own OptionError
    ],
)
def test_building_wrongly(things, name, options, message):
    with pytest.raises(UserError) as caught:
        things.build(name, options, "given")
    assert str(caught.value) == message


def test_own_builders_are_listed_with_those_of_the_home(things):
    things.register("mine")(builder)
    assert things.summaries() == {"ball": "Round.", "cube": "Has corners.", "mine": "A thing."}
    assert things.build("mine", {"size": 2}, "x") == ("x", 2, 0.1)


def _import(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_a_name_is_taken_once(things, tmp_path):
    things["ball"]
    path = tmp_path / "plugin.py"
    path.write_text("from test_registry_home import registry\n@registry.register('ball')\ndef mine(): ...\n")
    with pytest.raises(UserError, match=r"thing 'ball' is already registered: by both things_\d+\.one and"):
        _import(path, "plugin")


def test_a_name_of_the_home_is_taken_before_it_is_imported(things, tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text("from test_registry_home import registry\n@registry.register('ball')\ndef mine(): ...\n")
    with pytest.raises(UserError, match=r"thing 'ball' is already registered: by both things_\d+\.one and plugin"):
        _import(path, "plugin")
    assert f"{things.home}.one" not in sys.modules


def test_a_name_is_taken_once_within_one_file(things, tmp_path):
    path = tmp_path / "plugin.py"
    register = "@registry.register('new')\ndef {}(): ...\n"
    path.write_text("from test_registry_home import registry\n" + register.format("a") + register.format("b"))
    with pytest.raises(UserError, match="thing 'new' is already registered: by both plugin and plugin"):
        _import(path, "plugin")


def test_a_file_imported_under_two_names_registers_once(things, tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text("from test_registry_home import registry\n@registry.register('new')\ndef new(): ...\n")
    _import(path, "plugin")
    _import(path, "folder.plugin")
    assert list(things.summaries()) == ["ball", "cube", "new"]


def test_listing_imports_nothing_heavy_and_lists_what_is_registered():
    script = """if True:
        import json, sys
        import dlrun, dlrun.cli
        from dlrun.registry import REGISTRIES
        found = {kind: registry.summaries() for kind, registry in REGISTRIES.items()}
        heavy = "torch torchvision numpy sklearn albumentations cv2 wandb hydra omegaconf pydantic".split()
        print(json.dumps([found, [name for name in heavy if name in sys.modules]]))
    """
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    found, heavy = json.loads(printed)
    assert heavy == []
    assert {kind: " ".join(names) for kind, names in found.items()} == NAMES
    assert {kind: len(names) for kind, names in found.items()} == {
        "model": 9,
        "data": 11,
        "task": 1,
        "optimizer": 10,
        "scheduler": 10,
        "precision": 5,
    }
    for kind, registry in REGISTRIES.items():
        for name in found[kind]:
            assert callable(registry[name])  # imports them all
        assert registry.summaries() == found[kind]
        assert all(summary.endswith((".", ")")) for summary in found[kind].values()), found[kind]
