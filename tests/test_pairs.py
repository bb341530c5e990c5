"""Every model with every dataset: trains for two steps, or is refused with the models that would do."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dlrun.build import build
from dlrun.config import parse
from dlrun.errors import UserError
from dlrun.profiler import Unwatched
from dlrun.registry import datasets, models
from dlrun.tracking import Quiet
from dlrun.tracking.terminal import Terminal

TABULAR = {"blobs", "breast_cancer"}
TEXT = {"pydocs", "text_csv"}
# Small nets of each family, so that the walk takes seconds.
OPTIONS = {
    "mlp": ["model.hidden_sizes=[16]"],
    "cnn": ["model.channels=[4,8]", "model.hidden_size=16"],
    "speednet": ["model.widths=[4,8,8]"],
    "rnn": ["model.embedding_dim=8", "model.hidden_size=8"],
    "lstm": ["model.embedding_dim=8", "model.hidden_size=8"],
    "transformer": ["model.d_model=16", "model.num_heads=2", "model.d_ff=16", "model.num_layers=1"],
    "torchvision": ["model.arch=mobilenet_v3_small"],
    "timm": ["model.arch=test_resnet"],
}
SIZES = {"image_folder": ["data.image_size=[32,32]"]}


class Nowhere:
    """Keeps no checkpoint."""

    busy = False

    def put(self, state: dict[str, Any], best: bool = False) -> None: ...


def pictures(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny files of every dataset that reads files, in their own formats."""
    root = tmp_path_factory.mktemp("data")
    for name in ("MNIST", "FashionMNIST"):
        raw = root / name / "raw"
        raw.mkdir(parents=True)
        for part in ("train", "t10k"):
            pixels, labels = pictures((28, 28)), np.arange(60, dtype=np.uint8) % 10
            header = np.array([0x803, 60, 28, 28], ">i4").tobytes()
            (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, 60], ">i4").tobytes() + labels.tobytes())
    cifar = {"cifar-10-batches-py": "labels", "cifar-100-python": "fine_labels"}
    for folder, key in cifar.items():
        (root / folder).mkdir()
        batch = {"data": pictures((3072,)), key: [i % 10 for i in range(60)]}
        for name in ("train", "test"):
            (root / folder / name).write_bytes(pickle.dumps(batch))
        (root / folder / "meta").write_bytes(pickle.dumps({"label_names": [], "fine_label_names": []}))
    for label in ("cat", "dog"):
        (root / "train" / label).mkdir(parents=True)
        for number, pixels in enumerate(pictures((20, 30, 3))[:15]):
            Image.fromarray(pixels).save(root / "train" / label / f"{number}.jpg")
    lines = [f"{word} is word number {i},{'even' if i % 2 == 0 else 'odd'}" for i, word in enumerate("abcdefghij" * 4)]
    (root / "reviews.csv").write_text("\n".join(["text,label", *lines]))
    return root


@pytest.fixture(autouse=True)
def tiny_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our files of CIFAR are whole, but they aren't those that torchvision knows the checksums of."""
    from torchvision.datasets import CIFAR10, CIFAR100

    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: Path(path).exists())
    for cls in (CIFAR10, CIFAR100):
        monkeypatch.setattr(cls, "train_list", [["train", ""]])
        monkeypatch.setattr(cls, "test_list", [["test", ""]])
        monkeypatch.setattr(cls, "meta", {"filename": "meta", "key": "fine_label_names", "md5": ""})


def makes_sense(model: str, data: str) -> bool:
    if data in TABULAR:
        return model in ("perceptron", "mlp")
    return not (data in TEXT and model in ("torchvision", "timm", "speednet"))


def test_every_model_with_every_dataset(root: Path, compose_config: Callable[..., dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    trained, refused = [], []
    for data in datasets.names():
        for model in models.names():
            words = [f"model={model}", f"data={data}", f"data.root={root}", "data.batch_size=8"]
            words += ["data.val_fraction=0.2", *OPTIONS.get(model, []), *SIZES.get(data, [])]
            words += ["trainer.max_steps=2", "trainer.limit_val_batches=1"]
            words += ["data.file=reviews.csv"] if data == "text_csv" else []
            config = parse(compose_config(*words))
            if not makes_sense(model, data):
                with pytest.raises(UserError, match="choose perceptron"):
                    build(config)
                refused.append((model, data))
                continue
            run = build(config)
            before = [p.detach().clone() for p in run.parts["weights"].parameters()]
            trainer = run.trainer(Quiet(), Terminal(1, show_bar=False), Nowhere(), Unwatched())
            assert trainer.fit() == "finished"
            assert trainer.progress.step == 2, (model, data)
            after = list(run.parts["weights"].parameters())
            assert any(not torch.equal(b, a) for b, a in zip(before, after, strict=True)), (model, data)
            trained.append((model, data))
    assert (len(trained), len(refused)) == (79, 20)
