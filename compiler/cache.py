"""The disk cache: kernels and programs of earlier processes, found by what they were made from,
and the machine's roofline.

    entry  = head digest content      a file named KIND-KEY, of this user alone
    digest = sha256 of the name and the content

Entries are machine code, so an entry is believed only if it belongs to this user, no one else may
write it, and its digest is right; any other is as good as absent, and is written anew.  An entry
appears by renaming a finished file, so a reader sees it whole or not at all, however many
processes write at once, and whenever one is killed.

Nothing here raises an OSError.  A read that fails finds nothing; the first write that fails warns
once and ends writing in this process.

The folder is $METAOP_CACHE, else the platform's folder for caches.  It is bounded: when a process
has written for the first time, and after each further 64th part of the bound, entries unused for
longest go.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from metaop.config import config

HEAD = b"metaop cache 1\n"
DIGEST = 32  # bytes
LIMIT = 1 << 30
MARK_USED_AFTER = 3600.0  # seconds: how exact the time of last use is
FORGET_UNFINISHED_AFTER = 3600.0  # seconds: a file that its writer never finished
TEMPORARY = "new-"
KINDS = ("kernel", "program", "roofline")  # the last: what this machine can do, as measured
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_READ_SAFELY = _READ | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_CREATE = (os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
           | getattr(os, "O_BINARY", 0))  # fmt: skip


class CacheWarning(UserWarning):
    """The disk cache cannot be used; results are the same, compiled again in each process."""


class Entry(NamedTuple):
    """A file of the cache: its name, its size in bytes, when it was last used."""

    name: str
    nbytes: int
    used: float


class Cache:
    """Entries in one folder."""

    def __init__(self, folder: str, limit: int = LIMIT):
        self.folder, self.limit = folder, limit
        self.writable = True
        self._warned = False
        self._unchecked: float = limit  # bytes written since the size was looked at
        self._lock = threading.Lock()

    @classmethod
    def opened(cls, folder: str, limit: int = LIMIT) -> Cache | None:
        """The cache in a folder, made if it is not there; None, with a warning, if the folder is
        another user's, may be written by others, or cannot be made."""
        try:
            os.makedirs(folder, 0o700, exist_ok=True)
            fault = _distrust(os.stat(folder))
        except OSError as error:
            fault = f"is not to be had ({error.strerror or error})"
        if fault:
            _warn(f"the folder {folder} {fault}; nothing is cached. METAOP_CACHE names another")
            return None
        return cls(folder, limit)

    # ------------------------------------------------------------------------------- one entry

    def read(self, name: str) -> bytes | None:
        """The content of an entry, None if there is none that can be believed."""
        try:
            content = self._read(name)
        except OSError:
            return None
        if content is None:
            return None
        body = checked(name, content)
        if body is None:
            self._remove(name)
        return body

    def _read(self, name: str) -> bytes | None:
        file = os.open(os.path.join(self.folder, name), _READ_SAFELY)
        try:
            status = os.fstat(file)
            fault = _distrust(status)
            if fault or not stat.S_ISREG(status.st_mode):
                self._warn(f"the entry {name} in {self.folder} {fault or 'is no plain file'}; it "
                           "is not used")  # fmt: skip
                return None
            content = _read_all(file, status.st_size)
        finally:
            os.close(file)
        if _age(status.st_mtime) > MARK_USED_AFTER:
            self._mark_used(name)
        return content

    def _mark_used(self, name: str) -> None:
        try:
            os.utime(os.path.join(self.folder, name))
        except OSError:
            pass  # its age is only for the order of eviction

    def write(self, name: str, content: bytes, durable: bool = False) -> None:
        """Makes an entry, or replaces it.

        durable: it survives a crash of the machine.  Others may be found torn after one, which the
        digest tells, and are spared a wait for the disk.
        """
        if not self.writable:
            return
        temporary = os.path.join(self.folder, f"{TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}")
        try:
            self._write(temporary, name, content, durable)
        except OSError as error:
            self.writable = False
            self._warn(f"writing to {self.folder} failed ({error.strerror or error}); what this "
                       "process compiles is not cached")  # fmt: skip
            _unlink(temporary)
            return
        except BaseException:  # Ctrl-C
            _unlink(temporary)
            raise
        self._bound(len(content))

    def _write(self, temporary: str, name: str, content: bytes, durable: bool) -> None:
        file = os.open(temporary, _CREATE, 0o600)
        try:
            _write_all(file, HEAD + digest(name, content) + content)
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, os.path.join(self.folder, name))

    def _remove(self, name: str) -> None:
        _unlink(os.path.join(self.folder, name))

    # ------------------------------------------------------------------------------ all entries

    def entries(self) -> list[Entry]:
        """Every entry, the one used last in the end."""
        return sorted(self._scan(), key=lambda entry: (entry.used, entry.name))

    def _scan(self) -> Iterator[Entry]:
        try:
            with os.scandir(self.folder) as found:
                for item in found:
                    try:
                        status = item.stat(follow_symlinks=False)
                    except OSError:
                        continue  # another process removed it
                    if stat.S_ISREG(status.st_mode) and _is_ours(item.name):
                        yield Entry(item.name, status.st_size, status.st_mtime)
        except OSError:
            return

    def clear(self) -> int:
        """Removes every entry; how many there were."""
        entries = self.entries()
        for entry in entries:
            self._remove(entry.name)
        return len(entries)

    def verify(self) -> list[str]:
        """Removes the entries that cannot be believed; their names."""
        names = [entry.name for entry in self.entries() if not entry.name.startswith(TEMPORARY)]
        broken = [name for name in names if self.read(name) is None]
        for name in broken:
            self._remove(name)
        return broken

    def _bound(self, nbytes: int) -> None:
        """Removes what was unused for longest, down to 7/8 of the limit, if the limit is passed."""
        with self._lock:
            self._unchecked += nbytes
            if self._unchecked < self.limit / 64:
                return
            self._unchecked = 0
        entries = self.entries()
        total = sum(entry.nbytes for entry in entries)
        goal = self.limit if total <= self.limit else self.limit - self.limit // 8
        for entry in entries:
            if entry.name.startswith(TEMPORARY):
                if _age(entry.used) > FORGET_UNFINISHED_AFTER:
                    self._remove(entry.name)
            elif total > goal:
                self._remove(entry.name)
                total -= entry.nbytes

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            _warn(text)


def _warn(text: str) -> None:
    warnings.warn(f"metaop's disk cache: {text}", CacheWarning, stacklevel=2)


def _age(then: float) -> float:
    """Seconds since a file was used; a time to come is as far away, since the clock was set."""
    return abs(time.time() - then)


def _is_ours(name: str) -> bool:
    kind, _, key = name.partition("-")
    return name.startswith(TEMPORARY) or (len(key) == 64 and kind in KINDS)


def _distrust(status: os.stat_result) -> str:
    """Why a file or a folder is not this user's alone to write; empty if it is.

    Windows has no such bits; there a user's folder for caches is the user's by its access list.
    """
    if not hasattr(os, "geteuid"):
        return ""
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "may be written by other users"
    return ""


def digest(name: str, content: bytes) -> bytes:
    """What proves that content is whole and is that of this name."""
    return hashlib.sha256(b"%s\0%s" % (name.encode(), content)).digest()


def checked(name: str, content: bytes) -> bytes | None:
    """The content of a file of this name without its head, if it is whole."""
    start = len(HEAD) + DIGEST
    body = content[start:]
    if content[:start] != HEAD + digest(name, body):
        return None
    return body


def _read_all(file: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := os.read(file, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write_all(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        written = os.write(file, rest)
        if written <= 0:
            raise OSError("nothing could be written")
        rest = rest[written:]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it is not there, or is found broken the next time


# ----------------------------------------------------------------------------------- the process


def default_folder() -> str:
    """Where the platform keeps a user's caches, and metaop's compiled code in it."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~\\AppData\\Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "metaop", "compiled")


def cache() -> Cache | None:
    """The cache of the settings; None if it is off."""
    setting = config.cache.strip()
    if setting.lower() in ("0", "off", "no", "false"):
        return None
    return _opened(os.path.abspath(os.path.expanduser(setting)) if setting else default_folder())


@functools.cache
def _opened(folder: str) -> Cache | None:
    return Cache.opened(folder)
