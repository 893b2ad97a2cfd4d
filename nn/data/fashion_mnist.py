"""Fashion-MNIST: 70 000 grey images of clothes, found on disk or downloaded, always checked.

Source: H. Xiao, K. Rasul, R. Vollgraf (2017), Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms; MIT licence.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import metaop as mo

from .dataset import ImageDataset
from .idx import decompress, parse_idx

HOME_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
# of the decompressed bytes: the same whoever compressed them
MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}

_TIMEOUT = 30.0  # seconds without a byte
_DOWNLOAD_LIMIT = 1 << 26  # the largest file has 26 MB
_BLOCK = 1 << 16


class DataNotFoundError(FileNotFoundError):
    """A data set is neither on this machine nor could it be downloaded."""


class FashionMNIST(ImageDataset):
    """Images of clothes in ten classes: 60 000 for training, 10 000 for testing.

    images: uint8 [n, 28, 28]; labels: int64 [n], 0..9, named by `classes`.

    Each file, gzipped or not, is looked for in these places, in this order, and its check sum is
    verified wherever it comes from:

    1. the folder `root`, if given; the folder `$METAOP_DATA`; in both also in `fashion-mnist`;
    2. the user's cache (~/.cache/metaop/data on Linux);
    3. /usr/share/datasets/fashion-mnist, where Debian's package dataset-fashion-mnist puts it;
    4. the data set's home on the web, if `download`; kept in `root` if given, else in the cache.

    A broken file in the cache is reported by a warning and passed over.

    Raises: DataNotFoundError where it is nowhere; ValueError for a broken file in 1 or 3.
    """

    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        train: bool = True,
        download: bool = True,
    ):
        prefix = "train" if train else "t10k"
        images = _load(f"{prefix}-images-idx3-ubyte", root, download)
        labels = _load(f"{prefix}-labels-idx1-ubyte", root, download)
        super().__init__(images, labels.astype(np.int64))


def cache_folder() -> Path:
    """Where downloaded data sets are kept, by the custom of the operating system."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~\\AppData\\Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "metaop" / "data" / "fashion-mnist"


def _load(name: str, root: str | os.PathLike[str] | None, download: bool) -> np.ndarray:
    cache = cache_folder()
    for folder in _folders(root, cache):
        for path in (folder / name, folder / f"{name}.gz"):
            if not path.is_file():
                continue
            try:
                return _checked(path.read_bytes(), name, str(path))
            except ValueError as error:
                if folder != cache:
                    raise
                warnings.warn(f"passed over a broken file: {error}", stacklevel=3)
    if not download:
        raise _not_found(name, root, cache, "a download was not allowed")
    return _download(name, root, cache)


def _folders(root: str | os.PathLike[str] | None, cache: Path) -> Iterator[Path]:
    for named in (root, os.environ.get("METAOP_DATA")):
        if named:
            folder = Path(named).expanduser()
            yield folder
            yield folder / "fashion-mnist"
    yield cache
    yield DEBIAN_FOLDER


def _checked(content: bytes, name: str, source: str) -> np.ndarray:
    """The array in the bytes of a file, if they are what they must be; else a ValueError."""
    plain = decompress(content, source)
    array = parse_idx(plain, source)
    found = hashlib.md5(plain, usedforsecurity=False).hexdigest()
    if found != MD5[name]:
        raise ValueError(f"{source}: md5 of the decompressed bytes is {found}, not {MD5[name]}")
    return array


def _download(name: str, root: str | os.PathLike[str] | None, cache: Path) -> np.ndarray:
    url = f"{HOME_URL}{name}.gz"
    try:
        content = _fetch(url)
        array = _checked(content, name, url)
    except (OSError, ValueError) as error:
        reason = f"the download failed ({error})"
        raise _not_found(name, root, cache, reason) from error
    target = (Path(root).expanduser() if root else cache) / f"{name}.gz"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with mo.safetensors.atomic_write(target) as file:
            file.write(content)
    except OSError as error:
        warnings.warn(f"{url} could not be kept as {target}: {error}", stacklevel=4)
    return array


def _fetch(url: str) -> bytes:
    """The bytes behind `url`, with a line about the progress on standard error."""
    # Here, not above: `import metaop` would take 50 ms longer for what hardly any start needs.
    import http.client
    import urllib.request

    request = urllib.request.Request(url, headers={"User-Agent": "metaop"})
    content = bytearray()
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            total = int(response.headers.get("Content-Length") or 0)
            while block := response.read(_BLOCK):
                content += block
                if len(content) > _DOWNLOAD_LIMIT:
                    raise ValueError(f"{url}: longer than {_DOWNLOAD_LIMIT} bytes")
                _show_progress(url, len(content), total)
    except http.client.HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error
    if total and len(content) != total:
        raise ValueError(f"{url}: ended after {len(content)} of {total} bytes")
    _show_progress(url, len(content), total, done=True)
    return bytes(content)


def _show_progress(url: str, count: int, total: int, done: bool = False) -> None:
    # a terminal sees the numbers move; a log file gets one line, at the end
    if not done and not sys.stderr.isatty():
        return
    of_total = f" of {total / 1e6:.1f}" if total else ""
    line = f"{url.rsplit('/', 1)[-1]}: {count / 1e6:.1f}{of_total} MB"
    start = "\r" if sys.stderr.isatty() else ""
    print(f"{start}{line}", end="\n" if done else "", file=sys.stderr, flush=True)


def _not_found(
    name: str, root: str | os.PathLike[str] | None, cache: Path, reason: str
) -> DataNotFoundError:
    places = "\n".join(f"    {folder}" for folder in _folders(root, cache))
    return DataNotFoundError(
        f"Fashion-MNIST: {name} is in none of these folders, and {reason}:\n{places}\n"
        "Do one of these:\n"
        "    set METAOP_DATA to a folder that holds the four files of the data set;\n"
        "    apt install dataset-fashion-mnist (Debian, Ubuntu);\n"
        f"    allow the download: download=True, and a network that reaches {HOME_URL}"
    )
