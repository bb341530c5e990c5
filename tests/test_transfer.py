from __future__ import annotations

import copy
import pickle
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from dlrun import checkpoint
from dlrun.ema import EMA
from dlrun.errors import UserError
from dlrun.spec import DataSpec
from dlrun.transfer import Mismatch, transfer

SPEC = DataSpec("image", (3, 8, 8), ("cat", "dog", "owl"), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def network(classes: int = 3, width: int = 6, seed: int = 0) -> nn.Sequential:
    """A convolution, batch norm and a head; its statistics and weights are like those after some training."""
    torch.manual_seed(seed)
    layers = OrderedDict(
        conv=nn.Conv2d(3, width, 3), norm=nn.BatchNorm2d(width), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()
    )
    model = nn.Sequential(layers | OrderedDict(head=nn.Linear(width, classes)))
    for _ in range(seed % 7 + 1):
        model(torch.randn(4, 3, 8, 8))
    return model


def write(path: Path, model: nn.Module, ema: EMA | None = None, **changes) -> Path:
    state = dict.fromkeys(checkpoint.KEYS - {"format"}) | {"model": model.state_dict(), "spec": SPEC.plain()}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, state | {"ema": None if ema is None else ema.state_dict()} | changes)
    return path


def same(left: nn.Module, right: nn.Module) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def refused(model: nn.Module, path: Path) -> str:
    before = copy.deepcopy(model)
    with pytest.raises(UserError, match=r"^init_from: ") as caught:
        transfer(model, path, SPEC)
    assert same(model, before)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_everything_fits(tmp_path):
    trained, fresh = network(seed=4), network(seed=1)
    path = write(tmp_path / "checkpoints" / "best.pt", trained)
    report = transfer(fresh, tmp_path, SPEC)
    assert same(fresh, trained)
    assert fresh.norm.num_batches_tracked == 5
    assert str(report) == f"init_from: 9 of 9 tensors (100 % of the parameters) from {path}"
    assert (report.left, report.unused, report.warnings) == ([], [], [])


def test_what_fits_is_what_torch_takes(tmp_path):
    """The same file by load_state_dict(strict=False), which wants other shapes taken out first."""
    trained, fresh = network(classes=5, seed=4), network(seed=1)
    trained.extra = nn.Linear(2, 2)
    fresh.other = nn.Linear(6, 2)
    path = write(tmp_path / "run.pt", trained)
    expected = copy.deepcopy(fresh)
    fitting = {name: tensor for name, tensor in trained.state_dict().items() if not name.startswith("head.")}
    missing, unexpected = expected.load_state_dict(fitting, strict=False)
    report = transfer(fresh, path, SPEC)
    assert same(fresh, expected)
    assert [mismatch.name for mismatch in report.left] == missing
    assert report.unused == unexpected == ["extra.weight", "extra.bias"]
    assert report.left[0] == Mismatch("head.weight", torch.Size([3, 6]), torch.Size([5, 6]))
    assert report.left[2] == Mismatch("other.weight", torch.Size([2, 6]), None)
    counts = [p.numel() for p in fresh.parameters()]  # conv 2, norm 2, head 2, other 2
    assert report.share == sum(counts[:4]) / sum(counts)
    assert str(report).splitlines() == [
        f"init_from: 7 of 11 tensors (83.7 % of the parameters) from {path}",
        "  left as initialised: head.weight (3×6 here, 5×6 there), head.bias (3 here, 5 there), "
        "other.weight (2×6 here, not there), other.bias (2 here, not there)",
        "  not used: extra.weight, extra.bias",
    ]


def test_the_best_checkpoint_else_the_last(tmp_path):
    best, last = network(seed=4), network(seed=5)
    write(tmp_path / "checkpoints" / "last.pt", last)
    fresh = network()
    assert transfer(fresh, tmp_path, SPEC).source.endswith("last.pt")
    assert same(fresh, last)
    write(tmp_path / "checkpoints" / "best.pt", best)
    assert transfer(fresh, tmp_path, SPEC).source.endswith("best.pt")
    assert same(fresh, best)


class Tied(nn.Module):
    """An embedding that is the output layer too; a buffer that isn't saved stands before one that is."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.register_buffer("positions", torch.randn(4, 8), persistent=False)
        self.words = nn.Embedding(4, 8)
        self.scale = nn.Parameter(torch.randn(8))
        self.register_buffer("shift", torch.randn(8))
        self.head = nn.Linear(8, 4)
        self.head.weight = self.words.weight


@pytest.mark.parametrize("make", [lambda seed: network(seed=seed), Tied])
def test_averaged_weights_are_taken_where_there_are_any(tmp_path, make):
    live = make(4)
    ema = EMA(live, 0.9)
    with torch.no_grad():
        for parameter in live.parameters():
            parameter.add_(1)
    ema.update()
    averaged = copy.deepcopy(live)
    swapped = EMA(averaged, 0.9)
    swapped.load_state_dict(ema.state_dict())
    swapped.swap()  # what dlrun evaluates with
    path = write(tmp_path / "best.pt", live, ema)
    fresh = make(1)
    report = transfer(fresh, path, SPEC)
    assert same(fresh, averaged)
    assert not same(fresh, live)
    assert f"from {path} (its averaged weights)" in str(report)
    assert report.share == 1


def test_tied_weights_that_are_saved_under_one_name(tmp_path):
    trained, fresh = Tied(4), Tied(1)
    safetensors.torch.save_model(trained, str(tmp_path / "tied.safetensors"))
    report = transfer(fresh, tmp_path / "tied.safetensors", SPEC)
    assert same(fresh, trained)
    assert (report.left, report.share) == ([], 1)


@pytest.mark.parametrize("nested", ["state_dict", "model", "model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_state_dicts_of_others(tmp_path, nested, prefix):
    trained, fresh = network(seed=4), network(seed=1)
    state = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    torch.save(state if nested is None else {"epoch": torch.tensor(3), nested: state}, tmp_path / "model.pth")
    report = transfer(fresh, tmp_path / "model.pth", SPEC)
    assert same(fresh, trained)
    assert (len(report.taken), report.left, report.unused) == (9, [], [])


def test_wrappers_as_torch_makes_them(tmp_path):
    trained, fresh = network(seed=4), network(seed=1)
    wrapped = torch.compile(nn.DataParallel(trained))
    assert all(name.startswith("_orig_mod.module.") for name in wrapped.state_dict())
    torch.save(wrapped.state_dict(), tmp_path / "model.pth", _use_new_zipfile_serialization=False)
    transfer(fresh, tmp_path / "model.pth", SPEC)
    assert same(fresh, trained)


def test_names_that_begin_so_in_the_model_itself(tmp_path):
    def model(seed: int) -> nn.Module:
        return nn.ModuleDict({"module": network(seed=seed)})

    trained, fresh = model(4), model(1)
    torch.save(trained.state_dict(), tmp_path / "model.pth")
    transfer(fresh, tmp_path / "model.pth", SPEC)
    assert same(fresh, trained)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_safetensors_and_other_precisions(tmp_path, dtype):
    trained, fresh = network(seed=4).to(dtype), network(seed=1)
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "model.safetensors")
    transfer(fresh, tmp_path / "model.safetensors", SPEC)
    expected = network(seed=2)
    expected.load_state_dict(trained.state_dict())
    assert same(fresh, expected)
    assert {parameter.dtype for parameter in fresh.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in fresh.parameters())


def test_safetensors_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    (tmp_path / "x.safetensors").touch()
    assert refused(network(), tmp_path / "x.safetensors").endswith("safetensors library: pip install safetensors")


def test_nothing_fits(tmp_path):
    path = write(tmp_path / "best.pt", nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2)))
    assert refused(network(), path) == (
        f"init_from: nothing in {path} fits this model; it has 0.weight (2×4), 0.bias (2), 1.weight (2×2) and 1 more, "
        "and the model conv.weight (6×3×3×3), conv.bias (6), norm.weight (6) and 6 more"
    )


def test_a_counter_that_fits_is_no_weight_that_fits(tmp_path):
    path = write(tmp_path / "best.pt", network(width=7, classes=2))  # all but norm.num_batches_tracked is larger
    assert "fits this model" in refused(network(), path)


def test_long_lists_are_cut(tmp_path):
    deep = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50)))
    path = write(tmp_path / "best.pt", nn.Sequential(nn.Linear(2, 2), *(nn.Linear(3, 3) for _ in range(60))))
    text = str(transfer(deep, path, SPEC))
    assert "1.weight (2×2 here, 3×3 there), 1.bias (2 here, 3 there), 2.weight" in text
    assert text.splitlines()[1].endswith(" and 92 more")
    assert text.splitlines()[2] == "  not used: 50.weight, 50.bias, 51.weight, 51.bias, 52.weight, 52.bias and 16 more"


WORDS = DataSpec("text", (8,), ("a", "b"), vocab_size=20, tokenizer='{"cat": 2}')


ANIMALS = "the classes are others or in another order: dog, cat, owl here, cat, dog, owl there"
NORMALISED = "the inputs are normalised with another mean or standard deviation"
VOCABULARY = "the vocabulary is another one: a token's embedding is that of another word"


@pytest.mark.parametrize(
    ("there", "changes", "said"),
    [
        (SPEC, {"class_names": ("dog", "cat", "owl")}, [ANIMALS]),
        (SPEC, {"mean": (0.4, 0.5, 0.5)}, [NORMALISED]),
        (SPEC, {"class_names": ("dog", "cat", "owl"), "std": (0.4, 0.5, 0.5)}, [ANIMALS, NORMALISED]),
        (SPEC, {"class_names": ("a", "b"), "shape": (3, 9, 9)}, []),  # no class's weights fit
        (WORDS, {"tokenizer": '{"dog": 2}'}, [VOCABULARY]),
        (WORDS, {"tokenizer": '{"dog": 2}', "vocab_size": 30}, []),  # nor does an embedding
    ],
)
def test_weights_that_fit_and_mean_something_else(tmp_path, there, changes, said):
    path = write(tmp_path / "best.pt", network(), spec=there.plain())
    report = transfer(network(), path, replace(there, **changes))
    assert report.warnings == said
    assert str(report).splitlines()[1:] == [f"  warning: {line}" for line in said]


def test_weights_that_arent_finite(tmp_path):
    trained = network()
    with torch.no_grad():
        trained.head.weight[0, 0], trained.norm.running_var[1] = torch.nan, torch.inf
    report = transfer(network(), write(tmp_path / "best.pt", trained), SPEC)
    assert report.warnings == ["not all of it is finite: norm.running_var, head.weight"]


class Malicious:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("old", [False, True])
def test_code_is_not_run(tmp_path, old):
    trap, path = tmp_path / "trap", tmp_path / "model.pth"
    content = {"state_dict": network().state_dict(), "args": Malicious(trap)}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    said = refused(network(), path)
    assert said.startswith(f"init_from: {path} is refused: it needs code to load, and may run any; ")
    assert not trap.exists()
    torch.load(path, weights_only=False)  # the trap would have worked
    assert trap.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_whole_models_are_refused(tmp_path):
    torch.save(network(), tmp_path / "model.pth")
    torch.jit.trace(network(), torch.randn(2, 3, 8, 8)).save(str(tmp_path / "script.pt"))
    for name in ("model.pth", "script.pt"):
        assert "needs code to load" in refused(network(), tmp_path / name)


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 7, 100, 0.5, -30, -1])
def test_damaged_files(tmp_path, suffix, kept):
    path = tmp_path / f"model.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(network().state_dict(), path)
    else:
        torch.save(network().state_dict(), path, _use_new_zipfile_serialization=suffix == "pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert refused(network(), path) == f"init_from: {path} can't be read: it is damaged, or no file of weights"


def test_a_flipped_bit_in_a_weight(tmp_path):
    path = write(tmp_path / "best.pt", network())
    content, weight = path.read_bytes(), network().conv.weight.detach().numpy().tobytes()
    place = content.index(weight) + 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert "is damaged" in refused(network(), path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(3), {"state_dict": {}, "epoch": 3}, {}])
def test_files_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    assert "model.pt holds no weights: expected tensors by name" in refused(network(), tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_text_and_a_pickle(tmp_path):
    (tmp_path / "model.pt").write_text("epoch,loss\n1,0.5\n")
    assert "it is damaged, or no file of weights" in refused(network(), tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"a": 1}))
    assert "model.pt" in refused(network(), tmp_path / "model.pt")


def test_a_newer_format(tmp_path):
    path = write(tmp_path / "best.pt", network())
    torch.save(torch.load(path, weights_only=True) | {"format": checkpoint.FORMAT + 1}, path)
    assert refused(network(), path).endswith(f"this dlrun reads up to {checkpoint.FORMAT}; upgrade dlrun")


def test_places_where_nothing_is(tmp_path):
    write(tmp_path / "digits_cnn" / "checkpoints" / "best.pt", network())
    (tmp_path / "empty").mkdir()
    assert refused(network(), tmp_path / "digits_cn") == (
        f"init_from: there is no file or folder {tmp_path}/digits_cn; did you mean 'digits_cnn'?"
    )
    assert refused(network(), tmp_path / "no" / "where") == f"init_from: there is no file or folder {tmp_path}/no/where"
    assert refused(network(), tmp_path / "empty") == (
        f"init_from: there is no {tmp_path}/empty/checkpoints/best.pt and no last.pt beside it; "
        "name a run's folder or a file"
    )
