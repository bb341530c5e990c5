from __future__ import annotations

import gzip
import hashlib
import http.server
import multiprocessing
import pickle
import struct
import tarfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from sklearn.model_selection import train_test_split

from dlrun.data.source import DataOptions
from dlrun.errors import UserError
from dlrun.registry import datasets

CIFARS = {
    "cifar10": (torchvision.datasets.CIFAR10, 10, [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]),
    "cifar100": (torchvision.datasets.CIFAR100, 100, ["train"], ["test"]),
}
GREYS = {"mnist": torchvision.datasets.MNIST, "fashion_mnist": torchvision.datasets.FashionMNIST}
URLOPEN = urllib.request.urlopen
NEEDS_NONE = "or take data that needs none: digits, pydocs, breast_cancer, blobs, fake"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, whatever the machine has; locks lie in a folder that goes away."""

    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root: Path, name: str, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """Batches as Krizhevsky publishes them, two or four pictures per class in all; their checksums are the new ones.

    Returns train and test pictures as (N, 3072) bytes: 1024 red, 1024 green, 1024 blue, each row by row.
    """
    cls, classes, train_files, test_files = CIFARS[name]
    folder = root / cls.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    written, sums = [], []
    for files, size in ((train_files, 4 * classes), (test_files, 2 * classes)):
        pixels, labels = random.integers(0, 256, (size, 3072), dtype=np.uint8), np.arange(size) % classes
        for file, part in zip(files, np.array_split(np.arange(size), len(files)), strict=True):
            batch = {"data": pixels[part], "fine_labels" if classes == 100 else "labels": labels[part].tolist()}
            if classes == 100:
                batch["coarse_labels"] = [0] * len(part)
            (folder / file).write_bytes(pickle.dumps(batch, protocol=2))
        written.append(pixels)
        sums.append([[file, md5(folder / file)] for file in files])
    meta = {**cls.meta}
    (folder / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: [str(i) for i in range(classes)]}, protocol=2))
    monkeypatch.setattr(cls, "train_list", sums[0])
    monkeypatch.setattr(cls, "test_list", sums[1])
    monkeypatch.setattr(cls, "meta", {**meta, "md5": md5(folder / meta["filename"])})
    return written[0], written[1]


def archived(root: Path, name: str, monkeypatch) -> Path:
    """The batches packed into the tar.gz that one downloads, and nothing else left."""
    cls = CIFARS[name][0]
    path = root / cls.filename
    with tarfile.open(path, "w:gz") as archive:
        archive.add(root / cls.base_folder, cls.base_folder)
    for file in (root / cls.base_folder).iterdir():
        file.unlink()
    (root / cls.base_folder).rmdir()
    monkeypatch.setattr(cls, "tgz_md5", md5(path))
    return path


def idx(array: np.ndarray) -> bytes:
    """LeCun's format: 0, 0, 8 for bytes, the number of axes, each one's length, big-endian, then the bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_grey(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The four files of MNIST; returns train and test pictures."""
    folder = root / GREYS[name].__name__ / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    written = []
    for prefix, size in (("train", 40), ("t10k", 20)):
        pixels = random.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(size, dtype=np.uint8) % 10))
        written.append(pixels)
    return written[0], written[1]


def load(name: str, root: Path, **options):
    return datasets.build(name, options, DataOptions(root, val_fraction=0.5, split_seed=0)).load()


def assert_unchanged(splits, train: np.ndarray, test: np.ndarray, classes: int) -> None:
    """(N, H, W, C) as they were written: the test split whole and in order, the rest as scikit-learn carves it."""
    labels = np.arange(len(train)) % classes
    chosen = train_test_split(np.arange(len(train)), test_size=0.5, stratify=labels, random_state=0)
    for split, expected in ((splits.train, chosen[0]), (splits.val, chosen[1])):
        assert np.array_equal(split.fetch(torch.arange(len(split))).numpy(), train[expected])
        assert split.targets.tolist() == labels[expected].tolist()
    assert np.array_equal(splits.test.fetch(torch.arange(len(test))).numpy(), test)
    assert splits.test.targets.tolist() == (np.arange(len(test)) % classes).tolist()


def colours(planes: np.ndarray) -> np.ndarray:
    """CIFAR's (N, 3072) as pictures (N, 32, 32, 3)."""
    return np.stack([planes[:, c * 1024 : (c + 1) * 1024].reshape(-1, 32, 32) for c in range(3)], axis=-1)


@pytest.mark.parametrize("name", CIFARS)
@pytest.mark.parametrize("packed", [False, True])
def test_cifar_comes_through_unchanged(name, packed, tmp_path, monkeypatch):
    train, test = map(colours, write_cifar(tmp_path, name, monkeypatch))
    if packed:
        archived(tmp_path, name, monkeypatch)
    assert_unchanged(load(name, tmp_path), train, test, CIFARS[name][1])


@pytest.mark.parametrize("name", GREYS)
@pytest.mark.parametrize("packed", [False, True])
def test_grey_pictures_come_through_unchanged(name, packed, tmp_path, monkeypatch):
    train, test = write_grey(tmp_path, name)
    if packed:  # as downloaded by hand
        sums = []
        for path in sorted((tmp_path / GREYS[name].__name__ / "raw").iterdir()):
            packed_path = path.with_name(path.name + ".gz")
            packed_path.write_bytes(gzip.compress(path.read_bytes()))
            sums.append((packed_path.name, md5(packed_path)))
            path.unlink()
        monkeypatch.setattr(GREYS[name], "resources", sums)
    assert_unchanged(load(name, tmp_path), train[..., None], test[..., None], 10)


def test_another_size(tmp_path):
    write_grey(tmp_path, "mnist")
    source = datasets.build("mnist", {"image_size": [14, 20]}, DataOptions(tmp_path, 0.5, 0))
    assert source.spec.shape == (1, 14, 20)
    assert source.load().test.fetch(torch.tensor([0, 1])).shape == (2, 14, 20, 1)


def test_what_is_known_without_the_data(tmp_path):
    specs = {name: datasets.build(name, {}, DataOptions(tmp_path, 0.1, 0)).spec for name in (*CIFARS, *GREYS)}
    assert list(tmp_path.iterdir()) == [tmp_path / "tmp"]
    assert {name: (spec.shape, spec.num_outputs) for name, spec in specs.items()} == {
        "cifar10": ((3, 32, 32), 10),
        "cifar100": ((3, 32, 32), 100),
        "mnist": ((1, 28, 28), 10),
        "fashion_mnist": ((1, 28, 28), 10),
    }
    assert list(specs["fashion_mnist"].class_names) == torchvision.datasets.FashionMNIST.classes
    for name in CIFARS:  # published in alphabetical order
        assert list(specs[name].class_names) == sorted(set(specs[name].class_names))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def refused(name: str, root: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        load(name, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", CIFARS)
def test_a_flipped_bit_in_a_batch(name, tmp_path, monkeypatch):
    cls, _, train_files, _ = CIFARS[name]
    write_cifar(tmp_path, name, monkeypatch)
    flip(tmp_path / cls.base_folder / train_files[-1])
    for options, reason in (({}, "can't download"), ({"download": False}, "no complete")):
        message = refused(name, tmp_path, **options)
        assert f"{reason} {cls.__name__}" in message
        assert f"put {cls.filename} into {tmp_path}, {NEEDS_NONE}" in message


def test_a_flipped_bit_is_healed_from_the_archive(tmp_path, monkeypatch):
    cls = torchvision.datasets.CIFAR10
    train, test = map(colours, write_cifar(tmp_path, "cifar10", monkeypatch))
    with tarfile.open(archived(tmp_path, "cifar10", monkeypatch)) as archive:
        archive.extractall(tmp_path, filter="data")
    flip(tmp_path / cls.base_folder / "data_batch_3")
    assert_unchanged(load("cifar10", tmp_path), train, test, 10)


def test_a_damaged_archive(tmp_path, monkeypatch):
    write_cifar(tmp_path, "cifar10", monkeypatch)
    flip(archived(tmp_path, "cifar10", monkeypatch))
    message = refused("cifar10", tmp_path)
    assert "can't download CIFAR10 (<urlopen error Temporary failure in name resolution>)" in message
    assert f"put cifar-10-python.tar.gz into {tmp_path}, {NEEDS_NONE}" in message


@pytest.mark.parametrize("file", ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"])
@pytest.mark.parametrize("kept", [0, 3, 10, -1])
@pytest.mark.parametrize("download", [True, False])
def test_a_truncated_idx_file(file, kept, download, tmp_path):
    write_grey(tmp_path, "mnist")
    path = tmp_path / "MNIST" / "raw" / f"{file}-ubyte"
    path.write_bytes(path.read_bytes()[:kept])
    message = refused("mnist", tmp_path, download=download)
    assert f"MNIST in {tmp_path} is damaged" in message
    assert "delete it" in message


@pytest.mark.parametrize("name", [*CIFARS, *GREYS])
@pytest.mark.parametrize("download", [True, False])
def test_no_data_and_no_network(name, download, tmp_path):
    root = tmp_path / "deep" / "data"
    message = refused(name, root, download=download)
    assert str(root) in message
    assert NEEDS_NONE in message
    assert not (tmp_path / "deep").exists()


def test_the_users_own_folders_survive_a_failed_download(tmp_path):
    root = tmp_path / "data"
    (root / "mine" / "not yet filled").mkdir(parents=True)
    refused("mnist", root)
    assert [str(path.relative_to(root)) for path in root.rglob("*")] == ["mine", "mine/not yet filled"]


def test_a_folder_that_cant_be_made(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert str(tmp_path / "file") in refused("mnist", tmp_path / "file")


def test_a_user_without_a_name_can_download(tmp_path, monkeypatch):
    """In a container started with `--user 1234` there is none."""

    def nobody(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert NEEDS_NONE in refused("mnist", tmp_path / "data")


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, slowly, and counts; /ready answers when all processes have asked for it."""

    def __init__(self, content: bytes, processes: int):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.downloads, self.all_ready = content, 0, threading.Barrier(processes, timeout=120)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        content = b""
        if self.path == "/ready":
            self.server.all_ready.wait()
        else:
            self.server.downloads += "Method" not in self.headers  # torchvision asks for redirections first
            time.sleep(0.3)  # any other process would ask in the meantime
            content = self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def loads(queue, address: str, root: Path) -> None:
    torch.set_num_threads(1)  # as in a loader's process: OpenMP's threads aren't forked with the rest
    urllib.request.urlopen(f"{address}/ready").read()
    queue.put(load("cifar10", root).test.inputs.sum().item())


def test_processes_that_start_at_once_download_once(tmp_path, monkeypatch):
    _, test = write_cifar(tmp_path / "server", "cifar10", monkeypatch)
    server = Server(archived(tmp_path / "server", "cifar10", monkeypatch).read_bytes(), processes=3)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"{address}/cifar-10-python.tar.gz")
    monkeypatch.setattr("urllib.request.urlopen", URLOPEN)
    monkeypatch.setenv("no_proxy", "*")
    fork = multiprocessing.get_context("fork")  # importing torch three times more would take all the time
    queue = fork.SimpleQueue()
    processes = [fork.Process(target=loads, args=(queue, address, tmp_path / "data")) for _ in range(3)]
    for process in processes:
        process.start()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for process in processes:
        process.join()
    server.shutdown()
    thread.join()
    server.server_close()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [queue.get() for _ in processes] == [test.sum(dtype=np.int64)] * 3
    assert server.downloads == 1
