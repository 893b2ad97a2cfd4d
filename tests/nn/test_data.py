"""The data sets and the loader: what is found where, what is refused, what a batch is."""

from __future__ import annotations

import gc
import gzip
import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metaop as mo
from metaop.nn import data
from metaop.nn.data import (
    DataLoader,
    DataNotFoundError,
    Dataset,
    Digits,
    FashionMNIST,
    ImageDataset,
    TensorDataset,
    fashion_mnist,
)
from metaop.nn.data.idx import parse_idx, read_idx

CHECKOUT = Path(__file__).resolve().parents[2]

# --- IDX files --------------------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    """A uint8 array as an uncompressed IDX file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_idx_file_reads_as_the_array_gzipped_or_not(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(idx_bytes(array))
    packed.write_bytes(gzip.compress(idx_bytes(array), mtime=0))
    for path in (plain, packed):
        result = read_idx(path)
        assert result.dtype == np.uint8 and result.flags.writeable
        np.testing.assert_array_equal(result, array)


def test_idx_reads_big_endian_elements_in_native_order():
    content = b"\0\0\x0c\x01" + struct.pack(">I2i", 2, -1, 70000)
    result = parse_idx(content, "x")
    assert result.tolist() == [-1, 70000] and result.dtype.isnative


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x08", "truncated, 3 bytes"),
        (b"\0\0\x08\x03\0\0\0\1", "truncated within its 3 sizes"),
        (b"\1\0\x08\x01\0\0\0\1\0", "not an IDX file, it begins with 01 00 08 01"),
        (b"\0\0\x07\x01\0\0\0\1\0", "not an IDX file"),
        (b"\0\0\x08\x01\0\0\0\5abcd", r"truncated, \[5\] needs 5 bytes of data, has 4"),
        (b"\0\0\x08\x01\0\0\0\3abcd", r"too long, \[3\] needs 3 bytes of data, has 4"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\1a", mtime=0)[:-5], "broken or truncated gzip"),
        (b"\x1f\x8b\x08garbage.......", "broken or truncated gzip"),
    ],
)
def test_a_broken_idx_file_is_a_value_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "some-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"some-idx3-ubyte: {message}"):
        read_idx(path)


# --- Fashion-MNIST ----------------------------------------------------------------------------

IMAGES = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
LABELS = np.array([9, 0, 4], dtype=np.uint8)


@pytest.fixture
def files(monkeypatch):
    """A tiny data set by file name, expected by the check sums; with it, nothing else exists."""
    content = {
        "train-images-idx3-ubyte": idx_bytes(IMAGES),
        "train-labels-idx1-ubyte": idx_bytes(LABELS),
        "t10k-images-idx3-ubyte": idx_bytes(IMAGES[:2]),
        "t10k-labels-idx1-ubyte": idx_bytes(LABELS[:2]),
    }
    sums = {name: hashlib.md5(data).hexdigest() for name, data in content.items()}
    monkeypatch.setattr(fashion_mnist, "MD5", sums)
    return content


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders in place of METAOP_DATA, the cache and Debian's, and no network."""
    folders = {name: tmp_path / name for name in ("named", "cache", "debian")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setenv("METAOP_DATA", str(folders["named"]))
    monkeypatch.setattr(fashion_mnist, "cache_folder", lambda: folders["cache"])
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", folders["debian"])

    def no_network(request, timeout):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    return folders


def put(folder: Path, files: dict[str, bytes], packed: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / (name + ".gz" * packed)
        path.write_bytes(gzip.compress(content, mtime=0) if packed else content)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", ["named", "cache", "debian", "named/fashion-mnist"])
def test_fashion_mnist_is_found_in_each_place(places, files, tmp_path, place, packed):
    put(tmp_path / place, files, packed)
    train, test = FashionMNIST(), FashionMNIST(train=False)
    np.testing.assert_array_equal(train.images, IMAGES)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int64
    assert len(train) == 3 and len(test) == 2
    image, label = train[0]
    assert image.shape == (28, 28) and label == 9 and type(label) is int
    assert repr(test) == "FashionMNIST(2 images of 28x28)"


def test_root_comes_before_every_other_place(places, files, tmp_path):
    put(tmp_path / "mine", files)
    put(places["named"], {"train-images-idx3-ubyte": b"never read"})
    assert len(FashionMNIST(root=tmp_path / "mine")) == 3


@pytest.mark.parametrize("place", ["named", "debian"])
@pytest.mark.parametrize("fault", ["flip", "cut"])
def test_a_broken_file_outside_the_cache_is_an_error(places, files, place, fault):
    name = "train-images-idx3-ubyte"
    good = files[name]
    bad = good[:-1] + bytes([good[-1] ^ 1]) if fault == "flip" else good[:-1]
    put(places[place], {**files, name: bad})
    message = "md5 of the decompressed" if fault == "flip" else "truncated"
    with pytest.raises(ValueError, match=f"{name}.gz: {message}"):
        FashionMNIST()


def test_a_broken_file_in_the_cache_is_reported_and_passed_over(places, files):
    name = "train-labels-idx1-ubyte"
    put(places["cache"], {**files, name: files[name][:-1] + b"\7"})
    put(places["debian"], files)
    with pytest.warns(UserWarning, match=f"broken file: .*{name}.gz: md5") as caught:
        assert FashionMNIST().labels.tolist() == [9, 0, 4]
    assert caught[0].filename == __file__


@pytest.mark.parametrize("download", [True, False])
def test_data_that_is_nowhere_is_an_error_that_names_three_ways(places, download):
    with pytest.raises(DataNotFoundError) as caught:
        FashionMNIST(download=download)
    text = str(caught.value)
    assert "set METAOP_DATA" in text
    assert "apt install dataset-fashion-mnist" in text
    assert "allow the download: download=True" in text
    assert str(places["named"]) in text and str(places["debian"]) in text
    assert ("no network in this test" if download else "was not allowed") in text
    assert isinstance(caught.value, FileNotFoundError)


class Response(io.BytesIO):
    """What urlopen gives: bytes, with or without their length said before."""

    def __init__(self, content: bytes, length: int | None = None):
        super().__init__(content)
        self.headers = {} if length is None else {"Content-Length": str(length)}


def serve(monkeypatch, files, change=lambda packed: packed, length=len):
    asked = []

    def urlopen(request, timeout):
        assert timeout and request.full_url.startswith("https://")
        asked.append(request.full_url)
        name = request.full_url.rsplit("/", 1)[1].removesuffix(".gz")
        packed = gzip.compress(files[name], mtime=0)
        return Response(change(packed), length(packed) if length else None)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


@pytest.mark.parametrize("length", [len, None])
def test_a_download_is_kept_in_the_cache(places, files, monkeypatch, capfd, length):
    asked = serve(monkeypatch, files, length=length)
    assert len(FashionMNIST()) == 3
    assert len(asked) == 2
    assert "train-images-idx3-ubyte.gz: 0.0" in capfd.readouterr().err
    assert len(FashionMNIST(download=False)) == 3
    assert sorted(path.name for path in places["cache"].iterdir()) == [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    ]


def test_a_download_goes_to_root_where_one_is_given(places, files, monkeypatch, tmp_path):
    serve(monkeypatch, files)
    FashionMNIST(root=tmp_path / "new" / "root")
    assert len(list((tmp_path / "new" / "root").iterdir())) == 2
    assert not list(places["cache"].iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda packed: packed[:-9], "ended after"),
        (lambda packed: packed[:40] + b"\0" + packed[41:], "ubyte.gz: "),
        (lambda packed: b"<html>please log in</html>" + b" " * (len(packed) - 26), "not an IDX"),
        (
            lambda packed: gzip.compress(b"\0\0\x08\1\0\0\0\1a", mtime=0).ljust(len(packed), b"\0"),
            "md5 of",
        ),
    ],
)
def test_a_damaged_download_is_not_used_and_not_kept(places, files, monkeypatch, change, message):
    serve(monkeypatch, files, change)
    with pytest.raises(DataNotFoundError, match=message):
        FashionMNIST()
    assert not list(places["cache"].iterdir())


def test_a_download_that_cannot_be_kept_is_used_with_a_warning(places, files, monkeypatch):
    serve(monkeypatch, files)
    blocked = places["cache"] / "a-file"
    blocked.write_bytes(b"")
    monkeypatch.setattr(fashion_mnist, "cache_folder", lambda: blocked / "below")
    with pytest.warns(UserWarning, match="could not be kept as"):
        assert len(FashionMNIST()) == 3


def test_the_cache_lies_where_the_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for platform, below in [("linux", ""), ("darwin", "Library/Caches"), ("win32", "")]:
        monkeypatch.setattr(fashion_mnist.sys, "platform", platform)
        expected = tmp_path / below / "metaop" / "data" / "fashion-mnist"
        assert fashion_mnist.cache_folder() == expected


@pytest.mark.skipif(
    not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_the_real_data_set_has_its_published_sizes():
    test = FashionMNIST(train=False, download=False)
    assert test.images.shape == (10000, 28, 28)
    assert np.bincount(test.labels).tolist() == [1000] * 10


# --- digits -----------------------------------------------------------------------------------


def test_digits_are_the_1797_of_the_data_set():
    train, test = Digits(), Digits(train=False)
    assert train.images.shape == (1500, 8, 8) and test.images.shape == (297, 8, 8)
    assert train.images.dtype == np.uint8 and train.labels.dtype == np.int64
    labels = np.concatenate([train.labels, test.labels])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    pixels = np.concatenate([train.images, test.images])
    assert pixels.min() == 0 and pixels.max() == 16
    assert pixels.sum(dtype=np.int64) == 561718
    assert train[0][0][0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0] and train[0][1] == 0


def test_digits_in_fashion_shape_are_enlarged_and_scaled():
    digits = Digits(train=False)
    large = digits.as_fashion_shape()
    assert isinstance(large, ImageDataset) and large.images.dtype == np.uint8
    assert large.images.shape == (297, 28, 28) and large.images.max() == 255
    assert not large.images[:, :2].any() and not large.images[:, :, 26:].any()
    for row, column in [(0, 2), (3, 4), (7, 7)]:
        block = large.images[:, 2 + 3 * row : 5 + 3 * row, 2 + 3 * column : 5 + 3 * column]
        expected = np.rint(digits.images[:, row, column] / 16 * 255)
        assert (block == expected[:, None, None]).all()


def test_digits_ship_with_their_licence():
    text = Path(fashion_mnist.__file__).with_name("DIGITS_LICENSE.txt").read_text("utf-8")
    assert "CC BY 4.0" in text and "Alpaydin" in text and "What was changed" in text


# --- data sets --------------------------------------------------------------------------------


def test_tensor_dataset_gives_rows():
    dataset = TensorDataset(np.arange(6).reshape(3, 2), [10, 20, 30])
    assert len(dataset) == 3
    row, number = dataset[1]
    assert row.tolist() == [2, 3] and number == 20


def test_tensor_dataset_refuses_what_has_no_common_rows():
    with pytest.raises(ValueError, match=r"lengths must be equal, are \[3, 2\]"):
        TensorDataset(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="0-d array has no rows"):
        TensorDataset(np.float32(1))
    with pytest.raises(ValueError, match="at least one"):
        TensorDataset()


def test_a_dataset_must_define_its_length_and_items():
    class Empty(Dataset):
        pass

    with pytest.raises(NotImplementedError, match="Empty must define __len__"):
        len(Empty())
    with pytest.raises(NotImplementedError, match="Empty must define __getitem__"):
        Empty()[0]


# --- the loader -------------------------------------------------------------------------------


class Squares(Dataset):
    """Items without arrays; counts how many were asked for."""

    def __init__(self, count: int):
        self.count, self.asked = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[int, float]:
        self.asked += 1
        return index, float(index) ** 2


def numbers(loader: DataLoader) -> list[list[int]]:
    return [batch[0].tolist() for batch in loader]


@given(
    count=st.integers(0, 40),
    batch_size=st.integers(1, 12),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    prefetch=st.integers(0, 3),
    by_row=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_batches_are_a_partition_of_the_items(
    count, batch_size, shuffle, drop_last, prefetch, by_row
):
    source = (np.arange(count), np.arange(count) ** 2) if by_row else Squares(count)
    loader = DataLoader(source, batch_size, shuffle, 7, drop_last, prefetch=prefetch, as_numpy=True)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert all(len(batch) == 2 for batch in batches)
    sizes = [len(batch[0]) for batch in batches]
    rest = count % batch_size
    assert sizes == [batch_size] * (count // batch_size) + [rest] * (rest > 0 and not drop_last)
    seen = [number for batch in batches for number in batch[0].tolist()]
    if not drop_last:
        assert sorted(seen) == list(range(count))
    assert len(set(seen)) == len(seen)
    assert shuffle or seen == list(range(len(seen)))
    for first, second in batches:
        np.testing.assert_array_equal(first**2, second)


def test_one_seed_gives_one_order_for_each_epoch():
    def loader(seed: int) -> DataLoader:
        return DataLoader((np.arange(100),), 32, shuffle=True, seed=seed, as_numpy=True)

    first, again, other = loader(1), loader(1), loader(2)
    epochs = [numbers(first) for _ in range(3)]
    assert epochs == [numbers(again) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != numbers(other)
    first.set_epoch(1)
    assert [numbers(first), numbers(first)] == epochs[1:]


def test_the_shuffled_order_is_the_same_in_every_version():
    loader = DataLoader((np.arange(8),), 8, shuffle=True, seed=0, as_numpy=True)
    assert [numbers(loader)[0], numbers(loader)[0]] == [
        [0, 3, 7, 5, 1, 2, 6, 4],
        [3, 7, 4, 2, 1, 6, 5, 0],
    ]


def test_without_a_seed_two_loaders_differ_and_can_be_repeated():
    first = DataLoader(np.arange(100), 100, shuffle=True, as_numpy=True)
    second = DataLoader(np.arange(100), 100, shuffle=True, as_numpy=True)
    repeated = DataLoader(np.arange(100), 100, shuffle=True, seed=first.seed, as_numpy=True)
    order = numbers(first)
    assert order != numbers(second) and order == numbers(repeated)


def test_without_a_seed_the_order_follows_manual_seed():
    def orders() -> list:
        mo.manual_seed(5)
        loaders = [DataLoader(np.arange(50), 50, shuffle=True, as_numpy=True) for _ in range(2)]
        return [numbers(loader) for loader in loaders + loaders]

    once = orders()
    assert once == orders()
    assert len({str(order) for order in once}) == 4


def test_batches_do_not_share_memory_with_the_data():
    data = np.zeros((4, 2))
    for (batch,) in DataLoader(data, 2, as_numpy=True):
        batch += 1
    assert not data.any()


def test_a_class_that_overrides_getitem_is_read_item_by_item():
    class Negated(TensorDataset):
        def __getitem__(self, index):
            return tuple(-part for part in super().__getitem__(index))

    assert numbers(DataLoader(Negated(np.arange(4)), 4, as_numpy=True)) == [[0, -1, -2, -3]]


def test_items_are_stacked_part_by_part():
    pairs = [(np.full(2, i), float(i)) for i in range(3)]
    [(rows, floats)] = DataLoader(pairs, 3, as_numpy=True)
    assert rows.tolist() == [[0, 0], [1, 1], [2, 2]] and floats.dtype == np.float32
    [batch] = DataLoader([{"a": 1, "b": 2.0}, {"a": 3, "b": 4.0}], 2, as_numpy=True)
    assert batch["a"].tolist() == [1, 3] and batch["b"].tolist() == [2.0, 4.0]
    [(bare,)] = DataLoader([5, 6], 2, as_numpy=True)
    assert bare.tolist() == [5, 6]


def test_items_that_do_not_stack_are_an_error_that_mentions_collate():
    ragged = [np.zeros(2), np.zeros(3)]
    with pytest.raises(ValueError, match=r"part 0 .* different shapes.*collate="):
        list(DataLoader(ragged, 2, as_numpy=True))
    with pytest.raises(ValueError, match=r"different numbers of parts: \[1, 2\]"):
        list(DataLoader([(1, 2), (1,)], 2, as_numpy=True))
    [lengths] = DataLoader(ragged, 2, as_numpy=True, collate=lambda items: list(map(len, items)))
    assert lengths == [2, 3]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_transform_gets_the_arrays_and_gives_the_batch(prefetch):
    loader = DataLoader(
        (np.arange(4), np.arange(4)),
        2,
        prefetch=prefetch,
        as_numpy=True,
        transform=lambda x, y: (x / 2, y),
    )
    assert [batch[0].tolist() for batch in loader] == [[0, 0.5], [1, 1.5]]


def test_batches_are_vars_by_default():
    images, labels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.arange(3)
    batches = list(DataLoader((images, labels), 2))
    assert all(isinstance(part, mo.Var) for batch in batches for part in batch)
    (first, _), (last, label) = batches
    assert (first.dtype, first.shape) == (mo.uint8, (2, 2, 2))
    assert (label.dtype, label.tolist(), last.tolist()) == (mo.int64, [2], [[[8, 9], [10, 11]]])
    [batch] = DataLoader([{"a": 1}], 1)
    assert isinstance(batch["a"], mo.Var) and batch["a"].tolist() == [1]


def test_batches_are_made_in_advance_while_the_main_thread_computes():
    made = []

    def note(rows):
        made.append(int(rows[0]))
        return rows

    loader = DataLoader(np.arange(64, dtype=np.float32), 4, transform=note)
    weight, seen = mo.ones(()), []
    for step, rows in enumerate(loader):
        weight += rows.mean() * 0
        weight.sync()
        seen += rows.tolist()
        if step == 0:
            deadline = time.monotonic() + 10
            while len(made) < 4 and time.monotonic() < deadline:  # two in the queue, one in hand
                time.sleep(0.001)
            assert made == [0, 4, 8, 12]
    assert seen == list(range(64)) and weight.item() == 1


def test_a_transform_may_compute_with_vars_in_its_thread():
    def doubled(rows):
        return (mo.array(rows) * 2).numpy()

    total = mo.zeros(())
    for rows in DataLoader(np.arange(400, dtype=np.float32), 4, transform=doubled):
        total += mo.exp(rows * 0).sum() * rows.mean()
        total.sync()
    assert total.item() == 2 * 4 * sum(4 * i + 1.5 for i in range(100))


def test_importing_metaop_does_not_load_the_network_libraries():
    code = "import sys, metaop; print(metaop.nn.data.DataLoader, 'http.client' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    assert result.stdout.split() == ["<class", "'metaop.nn.data.loader.DataLoader'>", "False"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an int from 1 on, is 0"),
        ({"batch_size": 2.5}, "batch_size must be an int"),
        ({"prefetch": -1}, "prefetch must be an int from 0 on"),
        ({"seed": -1}, "seed must be an int from 0 on"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DataLoader([1, 2], **arguments)


def test_a_source_without_items_is_refused():
    with pytest.raises(TypeError, match="a int has no length and items"):
        DataLoader(5)


# --- the thread -------------------------------------------------------------------------------


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "metaop-data-loader"]


def wait_for_no_thread() -> None:
    end = time.monotonic() + 5
    while loader_threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not loader_threads()


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_a_break_stops_the_thread(prefetch):
    data = Squares(10_000)
    for batch in DataLoader(data, 3, prefetch=prefetch, as_numpy=True):
        assert len(loader_threads()) == 1
        assert batch[0].tolist() == [0, 1, 2]
        break
    assert not loader_threads()
    assert data.asked <= 3 * (prefetch + 3)


def test_a_break_does_not_wait_for_the_rest_of_a_slow_batch():
    class Slow(Squares):
        def __getitem__(self, index):
            time.sleep(0.02)
            return super().__getitem__(index)

    iterator = iter(DataLoader(Slow(2000), 1, prefetch=1, as_numpy=True))
    next(iterator)
    start = time.monotonic()
    iterator.close()
    assert time.monotonic() - start < 0.9
    assert not loader_threads()


def test_threads_do_not_pile_up():
    loader = DataLoader(Squares(50), 5, shuffle=True, seed=0, as_numpy=True)
    for _ in range(20):
        list(loader)
        next(iter(loader))
        iter(loader)  # never started
    gc.collect()
    assert not loader_threads()


def test_two_iterators_of_one_loader_run_side_by_side():
    loader = DataLoader(np.arange(6), 2, as_numpy=True)
    pairs = [(a[0].tolist(), b[0].tolist()) for a, b in zip(loader, loader, strict=True)]
    assert pairs == [([0, 1],) * 2, ([2, 3],) * 2, ([4, 5],) * 2]


class Faulty(Squares):
    def __getitem__(self, index):
        if index == 4:
            raise KeyError("item four is missing")
        return super().__getitem__(index)


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_an_error_in_the_thread_is_raised_in_the_loop_with_its_traceback(prefetch):
    seen = []
    with pytest.raises(KeyError, match="item four") as caught:
        for batch in DataLoader(Faulty(10), 2, prefetch=prefetch, as_numpy=True):
            seen.append(batch[0].tolist())
    assert seen == [[0, 1], [2, 3]]
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[0].startswith("test_an_error") and frames[-1] == "__getitem__"
    wait_for_no_thread()


def test_an_error_after_a_break_leaves_no_thread_behind():
    """With a queue of one, the thread once waited for ever to hand over its error."""
    for _ in range(10):
        next(iter(DataLoader(Faulty(10), 2, prefetch=1, as_numpy=True)))
    wait_for_no_thread()


def test_an_iterator_dropped_in_a_cycle_stops_its_thread():
    class Holder:
        pass

    holder = Holder()
    holder.me, holder.iterator = holder, iter(DataLoader(Squares(1000), 1, as_numpy=True))
    next(holder.iterator)
    del holder
    gc.collect()
    wait_for_no_thread()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_iterator_taken_through_a_fork_raises_instead_of_hanging():
    iterator = iter(DataLoader(Squares(1000), 1, prefetch=1, as_numpy=True))
    next(iterator)
    time.sleep(0.05)  # the thread waits for room in the queue, and holds no lock
    child = os.fork()
    if child == 0:  # _exit: pytest's own ending belongs to the parent
        try:
            for _ in range(10):
                next(iterator)
        except RuntimeError as error:
            os._exit(0 if "after a fork" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    iterator.close()


# --- parts and sums of data sets ------------------------------------------------------------------


def test_parts_of_a_split_have_no_common_item_and_depend_on_the_seed_alone():
    items = list(range(10))
    parts = data.random_split(items, [7, 3], seed=3)
    assert [len(part) for part in parts] == [7, 3]
    assert sorted([*parts[0], *parts[1]]) == items
    assert [*data.random_split(items, [7, 3], seed=3)[0]] == [*parts[0]] != items[:7]
    assert [len(part) for part in data.random_split(items, [0.5, 0.25, 0.25], seed=0)] == [6, 2, 2]
    with pytest.raises(ValueError, match="must add up to 10"):
        data.random_split(items, [7, 4])


def test_a_loader_reads_subsets_and_sums_of_data_sets():
    x, y = np.arange(6, dtype=np.float32), np.arange(6)
    pairs = TensorDataset(x, y)
    joined = data.ConcatDataset([data.Subset(pairs, [5, 1]), pairs])
    assert len(joined) == 8 and joined[-1] == (5, 5) and joined[2] == (0, 0)
    with pytest.raises(IndexError, match="item 8 is out of range for 8 items"):
        joined[8]
    batches = [labels.tolist() for _, labels in DataLoader(joined, batch_size=3)]
    assert batches == [[5, 1, 0], [1, 2, 3], [4, 5]]
    stacked = data.StackDataset(a=data.Subset(x, [1, 2]), b=data.Subset(y, [3, 4]))
    assert len(stacked) == 2 and stacked[1] == {"a": 2, "b": 4}
    with pytest.raises(ValueError, match=r"lengths must be equal, are \[2, 6\]"):
        data.StackDataset(x[:2], y)
