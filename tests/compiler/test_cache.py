"""The disk cache's entries: whole or absent, whatever fails, whoever else writes."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metaop as mo
from metaop.cli import main
from metaop.compiler import cache as cache_module
from metaop.compiler import pipeline
from metaop.compiler.cache import TEMPORARY, Cache, CacheWarning

posix_only = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has access lists")
root_only = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away"
)


def name_of(number: int, kind: str = "kernel") -> str:
    return f"{kind}-{number:064x}"


def opened(folder: Path, limit: int = 1 << 30) -> Cache:
    found = Cache.opened(str(folder), limit)
    assert found is not None
    return found


@pytest.fixture
def store(tmp_path: Path) -> Cache:
    return opened(tmp_path / "cache")


def path_of(store: Cache, name: str) -> Path:
    return Path(store.folder) / name


# --- one entry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 1000], ids=len)
@pytest.mark.parametrize("durable", [False, True])
def test_what_was_written_is_read(store: Cache, content: bytes, durable: bool):
    store.write(name_of(1), content, durable)
    assert store.read(name_of(1)) == content
    assert os.listdir(store.folder) == [name_of(1)]


def test_an_entry_that_is_not_there_is_none(store: Cache):
    assert store.read(name_of(1)) is None


def test_the_last_writer_wins(store: Cache):
    store.write(name_of(1), b"one")
    store.write(name_of(1), b"two")
    assert store.read(name_of(1)) == b"two"


def test_an_entry_under_another_name_is_not_believed(store: Cache):
    store.write(name_of(1), b"machine code")
    os.rename(path_of(store, name_of(1)), path_of(store, name_of(2)))
    assert store.read(name_of(2)) is None


def test_an_entry_with_any_bit_flipped_is_not_believed(store: Cache):
    store.write(name_of(1), b"code")
    path = path_of(store, name_of(1))
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        assert store.read(name_of(1)) is None
        assert not path.exists()  # so that it is not read, and rejected, for ever


def test_an_entry_cut_off_anywhere_or_with_something_after_it_is_not_believed(store: Cache):
    store.write(name_of(1), b"machine code")
    path = path_of(store, name_of(1))
    whole = path.read_bytes()
    for content in [*(whole[:k] for k in range(len(whole))), whole + b"x", whole + whole]:
        path.write_bytes(content)
        assert store.read(name_of(1)) is None


@posix_only
@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_an_entry_that_others_may_write_is_not_used(store: Cache, mode: int):
    store.write(name_of(1), b"code")
    path_of(store, name_of(1)).chmod(mode)
    with pytest.warns(CacheWarning, match="may be written by other users") as found:
        assert store.read(name_of(1)) is None
        assert store.read(name_of(1)) is None
    assert len(found) == 1
    store.write(name_of(1), b"code")
    assert store.read(name_of(1)) == b"code"


@root_only
def test_an_entry_of_another_user_is_not_used(store: Cache):
    store.write(name_of(1), b"code")
    os.chown(path_of(store, name_of(1)), 12345, 12345)
    with pytest.warns(CacheWarning, match="belongs to another user"):
        assert store.read(name_of(1)) is None
    store.write(name_of(1), b"code")
    assert store.read(name_of(1)) == b"code"


@posix_only
def test_a_link_a_folder_and_a_pipe_are_no_entries(store: Cache, tmp_path: Path):
    store.write(name_of(1), b"code")
    store.write(name_of(2), b"code")
    elsewhere = path_of(store, name_of(2)).rename(tmp_path / "whole and of this user")
    os.symlink(elsewhere, path_of(store, name_of(2)))
    os.mkdir(path_of(store, name_of(3)), 0o700)
    os.mkfifo(path_of(store, name_of(4)), 0o600)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        assert [store.read(name_of(k)) for k in (1, 2, 3, 4)] == [b"code", None, None, None]
    store.write(name_of(3), b"code")  # cannot be: a warning at most, given above


@posix_only
def test_entries_are_for_the_user_alone(store: Cache):
    store.write(name_of(1), b"code")
    assert stat.S_IMODE(path_of(store, name_of(1)).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(store.folder).stat().st_mode) == 0o700


# --- the folder -----------------------------------------------------------------------------------


def refused(folder: Path, match: str) -> None:
    with pytest.warns(CacheWarning, match=match) as found:
        assert Cache.opened(str(folder)) is None
    assert len(found) == 1


@posix_only
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path):
    tmp_path.chmod(0o777)
    refused(tmp_path, "may be written by other users; nothing is cached")


@root_only
def test_a_folder_of_another_user_is_refused(tmp_path: Path):
    os.chown(tmp_path, 12345, 12345)
    refused(tmp_path, "belongs to another user; nothing is cached")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    refused(tmp_path / "file" / "below", "is not to be had")


@pytest.mark.parametrize("setting", ["0", "off", "OFF", "no", " false "])
def test_the_cache_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, setting: str):
    monkeypatch.setattr(mo.config, "cache", setting)
    assert cache_module.cache() is None


def test_the_cache_is_where_the_setting_says_or_the_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(mo.config, "cache", str(tmp_path / "here"))
    found = cache_module.cache()
    assert found is not None and found.folder == str(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for platform, below in [("linux", ""), ("darwin", "Library/Caches"), ("win32", "")]:
        monkeypatch.setattr(cache_module.sys, "platform", platform)
        assert Path(cache_module.default_folder()) == tmp_path / below / "metaop" / "compiled"


# --- bounds ---------------------------------------------------------------------------------------


def test_what_was_unused_for_longest_goes_first(tmp_path: Path):
    store = opened(tmp_path / "cache", limit=100_000)
    for k in range(9):
        store.write(name_of(k), bytes(10_000))
        os.utime(path_of(store, name_of(k)), (0, 1000 * k))
    assert store.read(name_of(0)) is not None  # used now
    store.write(name_of(9), bytes(10_000))
    left = {entry.name for entry in store.entries()}
    assert left == {name_of(k) for k in (0, 3, 4, 5, 6, 7, 8, 9)}
    assert sum(entry.nbytes for entry in store.entries()) <= 100_000


def test_files_that_are_not_entries_are_left_alone(tmp_path: Path):
    store = opened(tmp_path / "cache", limit=1000)
    (tmp_path / "cache" / "thesis.txt").write_bytes(bytes(5000))
    store.write(name_of(1), bytes(10))
    assert store.clear() == 1
    assert os.listdir(store.folder) == ["thesis.txt"]


def test_a_clock_that_was_ahead_makes_no_entry_the_last_used_for_ever(tmp_path: Path):
    store = opened(tmp_path / "cache", limit=30_000)
    for k in range(2):
        store.write(name_of(k), bytes(10_000))
        os.utime(path_of(store, name_of(k)), (0, time.time() + 1e8))
    assert store.read(name_of(1)) is not None
    assert [entry.name for entry in store.entries()] == [name_of(1), name_of(0)]


@pytest.mark.parametrize("durable", [False, True])
def test_only_what_must_survive_a_crash_waits_for_the_disk(
    monkeypatch: pytest.MonkeyPatch, store: Cache, durable: bool
):
    waited = []
    monkeypatch.setattr(os, "fsync", waited.append)
    store.write(name_of(1), b"code", durable)
    assert len(waited) == durable


def test_unfinished_files_go_when_their_writer_must_be_dead(store: Cache):
    for k, age in enumerate((10, 10_000, -10_000)):
        path = path_of(store, f"{TEMPORARY}{k}")
        path.write_bytes(b"half")
        os.utime(path, (0, time.time() - age))
    opened(Path(store.folder)).write(name_of(1), b"code")
    assert sorted(os.listdir(store.folder)) == [name_of(1), f"{TEMPORARY}0"]


def test_verify_removes_what_is_broken_and_nothing_else(store: Cache):
    for k in range(3):
        store.write(name_of(k), b"code")
    path_of(store, name_of(1)).write_bytes(b"metaop cache 1\nnonsense")
    assert store.verify() == [name_of(1)]
    assert [entry.name for entry in store.entries()] == [name_of(0), name_of(2)]


# --- faults ---------------------------------------------------------------------------------------

FAILING = ("open", "write", "fsync", "replace", "read", "fstat", "stat", "unlink", "makedirs",
           "close", "utime", "scandir")  # fmt: skip
FAULTS = [errno.EIO, errno.ENOSPC, errno.EACCES, "short"]


class FaultyOs(types.ModuleType):
    """The module os, in which the n-th call of a file operation fails, or is cut short."""

    def __init__(self, n: int, fault: int | str):
        super().__init__("os")
        self._count, self._n, self._fault = 0, n, fault
        self.failed = ""

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._faulty(name, real) if name in FAILING else real

    def _faulty(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self._fault == "short" and name not in ("read", "write"):
                return real(*args, **options)
            self._count += 1
            if self._count != self._n:
                return real(*args, **options)
            self.failed = name
            if self._fault == "short":
                if name == "write":
                    return real(args[0], bytes(args[1])[: len(args[1]) // 2])
                return real(args[0], max(args[1] // 2, 1))
            if name == "close":
                real(*args)  # as Linux does: it is closed even then
            if name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise OSError(self._fault, os.strerror(self._fault))

        return call


def each_fault(
    monkeypatch: pytest.MonkeyPatch, folder: Path, action: Callable[[Path], Callable[[], None]]
) -> set[str]:
    """Runs an action in a new folder with the first, the second, ... file operation failing, until
    none does, and after each what it returned, with none failing; which operations failed."""
    seen = set()
    for fault in FAULTS:
        for n in range(1, 1000):
            faulty = FaultyOs(n, fault)
            with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                patch.setattr(cache_module, "os", faulty)
                check = action(folder / f"{fault}-{n}")
            check()
            assert len(found) <= 1, (faulty.failed, fault, [str(w.message) for w in found])
            assert all(issubclass(w.category, CacheWarning) for w in found)
            if not faulty.failed:
                break
            seen.add(faulty.failed)
        assert n > 2, "nothing failed"
    return seen


def test_no_failing_file_operation_gives_a_wrong_entry_or_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    contents = {name_of(k): bytes([k]) * 5000 for k in range(4)}

    def action(folder: Path) -> Callable[[], None]:
        faulty = Cache.opened(str(folder), 1 << 30)
        for name, content in contents.items():
            if faulty is not None:
                faulty.write(name, content, durable=True)
                assert faulty.read(name) in (content, None)
        if faulty is not None:
            faulty.entries()
            old = folder / name_of(1)
            if old.exists():
                os.utime(old, (0, 0))
                assert faulty.read(name_of(1)) in (contents[name_of(1)], None)
                old.write_bytes(b"broken")
                assert faulty.read(name_of(1)) is None
            faulty.clear()
            faulty.write(name_of(3), contents[name_of(3)])
        return lambda: check(folder)

    def check(folder: Path) -> None:
        whole = opened(folder)
        for name, content in contents.items():
            assert whole.read(name) in (content, None)
            whole.write(name, content)
            assert whole.read(name) == content

    seen = each_fault(monkeypatch, tmp_path, action)
    assert seen == set(FAILING)


def test_no_failing_file_operation_gives_a_wrong_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    x = mo.array(np.arange(7, dtype=np.float32)).sync()
    right = np.arange(7, dtype=np.float32) * 3.5 + 1.25

    def compute() -> None:
        pipeline.forget()
        assert np.array_equal((x * 3.5 + 1.25).numpy(), right)

    def action(folder: Path) -> Callable[[], None]:
        monkeypatch.setattr(mo.config, "cache", str(folder))
        monkeypatch.setattr(mo.config, "check", False)  # or programs are compiled in any case
        cache_module._opened.cache_clear()
        compute()  # compiles
        compute()  # finds it, unless writing failed
        return compute

    seen = each_fault(monkeypatch, tmp_path, action)
    assert {"open", "write", "fsync", "replace", "read", "fstat"} <= seen


def test_after_a_failed_write_no_other_is_tried(monkeypatch: pytest.MonkeyPatch, store: Cache):
    tried = []

    def full(*_: object) -> None:
        tried.append(True)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(CacheWarning, match="No space left"):
        store.write(name_of(1), b"code")
    store.write(name_of(2), b"code")
    assert tried == [True]
    assert not store.entries()


def test_ctrl_c_while_writing_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, store: Cache):
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "_write_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.write(name_of(1), b"code")
    assert os.listdir(store.folder) == []


# --- several processes ----------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def forked(action: Callable[[], None]) -> int:
    """The process id of a child that runs an action and ends."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return child


@forks
def test_a_killed_writer_leaves_whole_entries_only(store: Cache):
    content = random.Random(0).randbytes(200_000)

    def write_forever() -> None:
        while True:
            for k in range(5):
                store.write(name_of(k), content, durable=k == 0)

    generator = random.Random(1)
    unfinished = 0
    for _ in range(40):
        child = forked(write_forever)
        time.sleep(generator.uniform(0.002, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for path in Path(store.folder).iterdir():
            if path.name.startswith(TEMPORARY):
                unfinished += 1
                path.unlink()
            else:
                assert store.read(path.name) == content
    assert unfinished, "no writer was killed while it wrote"


@forks
def test_four_processes_write_and_read_the_same_entries(tmp_path: Path):
    """Entries are removed meanwhile, because the folder holds more than its limit."""
    contents = {name_of(k): bytes([k]) * 20_000 for k in range(8)}
    folder = tmp_path / "cache"

    def work(seed: int) -> None:
        warnings.simplefilter("error")
        store = opened(folder, limit=100_000)
        generator = random.Random(seed)
        for _ in range(300):
            name = generator.choice(list(contents))
            assert store.read(name) in (contents[name], None)
            store.write(name, contents[name])
        assert store.writable

    children = [forked(lambda seed=seed: work(seed)) for seed in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert not [n for n in os.listdir(folder) if n.startswith(TEMPORARY)]
    store = opened(folder)
    assert all(store.read(e.name) == contents[e.name] for e in store.entries())


# --- the command line -----------------------------------------------------------------------------


def command(action: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["cache", action])
    return status, capsys.readouterr().out


def test_the_command_line_shows_verifies_and_clears(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "cache"
    monkeypatch.setattr(mo.config, "cache", str(folder))
    store = opened(folder)
    for k in range(3):
        store.write(name_of(k), b"code")
        os.utime(path_of(store, name_of(k)), (0, 1000 * k))
    assert command("where", capsys) == (0, f"{folder}\n")
    assert command("size", capsys)[1].startswith("3 entries, 153 of at most 1,073,741,824 bytes in")
    listed = command("list", capsys)[1].splitlines()
    assert [line.split()[-1] for line in listed] == [name_of(k) for k in range(3)]
    assert command("verify", capsys) == (0, "3 entries are whole\n")
    path_of(store, name_of(1)).write_bytes(b"broken")
    status, text = command("verify", capsys)
    assert status == 1 and f"removed {name_of(1)}" in text and "2 entries are whole" in text
    assert command("clear", capsys) == (0, f"2 entries removed from {folder}\n")
    assert not os.listdir(folder)


def test_the_command_line_says_that_the_cache_is_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(mo.config, "cache", "off")
    assert main(["cache"]) == 1
    assert "off" in capsys.readouterr().err
