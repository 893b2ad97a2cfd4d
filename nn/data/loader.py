"""Batches of a data set, made ready by a thread while the last one is in use."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import metaop as mo

from .dataset import Dataset, IterableDataset, TensorDataset

_END = object()
_PATIENCE = 1.0  # seconds between two looks at whether the prefetching thread is alive


class DataLoader:
    """The batches of a data set; every `iter(loader)` is one epoch.

    A batch is a tuple of Vars, one for each part of an item (a dict of them where items are
    dicts).  Random order is a function of `seed` and the number of the epoch alone.

        for images, labels in DataLoader((x, y), batch_size=64, shuffle=True, seed=0):
            ...
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        prefetch: int = 2,
        *,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Sequence[int]] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        transform: Callable[..., Any] | None = None,
        as_numpy: bool = False,
    ):
        """Prepares the loader; reads nothing yet.

        dataset: a Dataset (or any sequence of items), an array, or a tuple of arrays; or an
            IterableDataset, whose items are taken in their own order.
        seed: an int from 0 on; None draws one from metaop's default generator when the first
            epoch begins (or `loader.seed` is read), so that `mo.manual_seed` settles the order.
        drop_last: leaves out a last batch that is smaller than the others.
        prefetch: how many batches a thread makes in advance; 0 makes them without a thread.
        sampler: the indices of an epoch's items, in order, in place of shuffle.
        batch_sampler: the indices of each batch, in place of batch_size, shuffle, drop_last and
            sampler.
        collate: makes a batch of a list of items, instead of stacking them.
        transform: called with the ndarrays of a batch (`transform(images, labels)`, or the dict);
            its result, or tuple of results, is the batch.  It runs in the thread.
        as_numpy: leaves a batch's ndarrays as they are instead of making Vars of them.
        """
        _check_count("batch_size", batch_size, 1)
        _check_count("prefetch", prefetch, 0)
        if seed is not None:
            _check_count("seed", seed, 0)
        if batch_sampler is not None and (
            batch_size != 1 or shuffle or drop_last or sampler is not None
        ):
            raise ValueError(
                "DataLoader: batch_sampler= stands for batch_size, shuffle, drop_last and sampler"
            )
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: give shuffle=True or sampler=, not both")
        self.is_stream = isinstance(dataset, IterableDataset)
        if self.is_stream and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError(
                "DataLoader: an IterableDataset has its own order, without shuffle or a sampler"
            )
        self.dataset = dataset if self.is_stream else _as_dataset(dataset)
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.batch_size, self.shuffle, self.drop_last = int(batch_size), shuffle, drop_last
        self._seed = None if seed is None else int(seed)
        self.prefetch, self.as_numpy = int(prefetch), as_numpy
        self.collate, self.transform = collate, transform
        self.epoch = 0

    @property
    def seed(self) -> int:
        """What random order depends on, besides the number of the epoch."""
        if self._seed is None:
            low, high = mo.random.random_bits(2).tolist()
            self._seed = low | high << 32
        return self._seed

    def __len__(self) -> int:
        """The number of batches in an epoch.  Raises TypeError for what has no length."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)  # type: ignore[arg-type]
        items: Any = self.dataset if self.sampler is None else self.sampler
        full, rest = divmod(len(items), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration epoch number `epoch` (the first is 0), to resume a training."""
        _check_count("epoch", epoch, 0)
        self.epoch = int(epoch)

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch
        self.epoch += 1
        return self._batches(self._items if self.is_stream else self._picked(self._rows(epoch)))

    def _rows(self, epoch: int) -> list[np.ndarray]:
        """The indices of every batch."""
        if self.batch_sampler is not None:
            return [np.asarray(list(batch), np.int64) for batch in self.batch_sampler]
        order, size = self._order(epoch), self.batch_size
        stop = len(order) - len(order) % size if self.drop_last else len(order)
        return [order[start : start + size] for start in range(0, stop, size)]

    def _order(self, epoch: int) -> np.ndarray:
        if self.sampler is not None:
            return np.asarray(list(self.sampler), np.int64)
        count = len(self.dataset)
        if not self.shuffle:
            return np.arange(count)
        # NumPy keeps the raw stream of a bit generator for ever, that of permutation() not
        bits = np.random.Philox(np.random.SeedSequence([self.seed, epoch]))
        return np.argsort(bits.random_raw(count), kind="stable")

    def _batches(
        self, produce: Callable[[threading.Event], Generator[Any, None, None]]
    ) -> Iterator[Any]:
        stop = threading.Event()
        batches = produce(stop)
        if self.prefetch:
            batches = _in_thread(batches, stop, self.prefetch)
        with contextlib.closing(batches):
            for batch in batches:
                yield batch if self.as_numpy else _to_vars(batch)

    def _picked(
        self, rows_of_batches: list[np.ndarray]
    ) -> Callable[[threading.Event], Generator[Any, None, None]]:
        """What makes these batches as ndarrays, and ends early, between two items, once the event
        is set."""

        def produce(stop: threading.Event) -> Generator[Any, None, None]:
            arrays = None if self.collate else _rows_of(self.dataset)
            for rows in rows_of_batches:
                if arrays is not None:
                    yield self._transformed(tuple(array[rows] for array in arrays))
                    continue
                items = []
                for row in rows.tolist():
                    if stop.is_set():
                        return
                    items.append(self.dataset[row])
                yield self._batch_of(items)

        return produce

    def _items(self, stop: threading.Event) -> Generator[Any, None, None]:
        """The same of a stream."""
        items: list[Any] = []
        for item in self.dataset:
            if stop.is_set():
                return
            items.append(item)
            if len(items) == self.batch_size:
                yield self._batch_of(items)
                items = []
        if items and not self.drop_last:
            yield self._batch_of(items)

    def _batch_of(self, items: list[Any]) -> Any:
        return self._transformed(self.collate(items) if self.collate else stack(items))

    def _transformed(self, batch: Any) -> Any:
        if self.transform is None:
            return batch
        result = self.transform(*batch) if isinstance(batch, tuple) else self.transform(batch)
        return tuple(result) if isinstance(result, list) else result


def stack(items: Sequence[Any]) -> Any:
    """Items as one batch: tuples part by part, dicts key by key, anything else as one part."""
    first = items[0]
    if isinstance(first, Mapping):
        return {key: _stack_part([item[key] for item in items], f"{key!r}") for key in first}
    if not isinstance(first, (tuple, list)):
        return (_stack_part(items, "0"),)
    counts = {len(item) for item in items}
    if len(counts) > 1:
        raise ValueError(f"the items of a batch have different numbers of parts: {sorted(counts)}")
    return tuple(
        _stack_part([item[part] for item in items], str(part)) for part in range(len(first))
    )


def _stack_part(values: Sequence[Any], part: str) -> np.ndarray:
    arrays = [np.asarray(value) for value in values]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"part {part} of the items of a batch has different shapes: {sorted(shapes)[:4]}; "
            "pass collate= to say how they make a batch"
        )
    # a list of Python floats is float32, as for mo.array
    is_float = all(type(value) is float for value in values)
    return np.stack(arrays).astype(np.float32) if is_float else np.stack(arrays)


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"DataLoader: {name} must be an int from {least} on, is {value!r}")


def _as_dataset(source: Any) -> Any:
    if isinstance(source, tuple):
        return TensorDataset(*source)
    if not isinstance(source, Dataset) and hasattr(source, "__array__"):
        return TensorDataset(source)
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise TypeError(f"DataLoader: a {type(source).__name__} has no length and items")
    return source


def _rows_of(dataset: Any) -> tuple[np.ndarray, ...] | None:
    """The arrays whose rows are the items, or None if the items must be asked for one by one.

    A subclass may override `__getitem__`, to augment images say, and inherit `arrays`: then the
    rows are not the items.
    """
    kind = type(dataset)
    with_arrays, with_items = _definer(kind, "arrays"), _definer(kind, "__getitem__")
    if with_arrays is None or with_items is None or not issubclass(with_arrays, with_items):
        return None
    arrays = tuple(dataset.arrays())
    lengths = [len(array) for array in arrays]
    if any(length != len(dataset) for length in lengths):
        raise ValueError(f"{kind.__name__}.arrays(): lengths {lengths}, but {len(dataset)} items")
    return arrays


def _definer(kind: type, name: str) -> type | None:
    return next((base for base in kind.__mro__ if name in vars(base)), None)


def _to_vars(batch: Any) -> Any:
    if isinstance(batch, np.ndarray):
        return mo.array(batch)
    if isinstance(batch, tuple):
        return tuple(map(_to_vars, batch))
    if isinstance(batch, dict):
        return {key: _to_vars(value) for key, value in batch.items()}
    return batch


# --- the thread -------------------------------------------------------------------------------


def _in_thread(
    batches: Iterator[Any], stop: threading.Event, depth: int
) -> Generator[Any, None, None]:
    """What `batches` yields, made by a thread up to `depth` in advance.

    The thread ends when the batches do, and soon after this generator is closed or dropped, as a
    `break` in the loop over it does.  An error in the thread is raised here, with its traceback.
    """
    done: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    thread = threading.Thread(
        target=_fill, args=(batches, done, stop), name="metaop-data-loader", daemon=True
    )
    thread.start()
    try:
        while True:
            batch, error = _take(done, thread)
            if error is not None:
                raise error
            if batch is _END:
                return
            yield batch
    finally:
        error = None  # an error holds this frame, which would hold the error
        _end(thread, done, stop)


def _fill(batches: Iterator[Any], done: queue.Queue[Any], stop: threading.Event) -> None:
    try:
        for batch in batches:
            _put(done, (batch, None), stop)
            if stop.is_set():
                return
        _put(done, (_END, None), stop)
    except BaseException as error:
        _put(done, (None, error), stop)


def _put(done: queue.Queue[Any], entry: tuple[Any, Any], stop: threading.Event) -> None:
    while not stop.is_set():  # afterwards nobody empties the queue any more
        with contextlib.suppress(queue.Full):
            done.put(entry, timeout=_PATIENCE)
            return


def _take(done: queue.Queue[Any], thread: threading.Thread) -> tuple[Any, BaseException | None]:
    while True:
        try:
            return done.get(timeout=_PATIENCE)
        except queue.Empty:
            # It leaves an end or an error behind; without one it was lost in a fork.
            if not thread.is_alive() and done.empty():
                raise RuntimeError(
                    "DataLoader: the prefetching thread is gone; after a fork, make a new "
                    "iterator in the child"
                ) from None


def _end(thread: threading.Thread, done: queue.Queue[Any], stop: threading.Event) -> None:
    stop.set()
    while not done.empty():  # room for the one put() that may be waiting
        try:
            done.get_nowait()
        except queue.Empty:
            break
    # Not for ever: an item may hang, and the collector may run this in that very thread.
    if thread is not threading.current_thread():
        thread.join(_PATIENCE)
