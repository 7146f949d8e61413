"""Where dmq keeps state on this machine: private files, replaced as a whole, and folders that can be locked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from dmq_core.errors import ClusterError, OperationTimeoutError

STATE_FILE = "state.json"
_LOCK_POLL_S = 0.1


def state_folder() -> Path:
    """Where dmq keeps state: `DMQ_STATE_DIR`, else `$XDG_STATE_HOME/dmq`, else `~/.local/state/dmq`."""
    own = os.environ.get("DMQ_STATE_DIR")
    if own:
        return Path(own).absolute()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state").absolute() / "dmq"


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Replaces a file as a whole; nobody but its owner can read it at any moment."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{random.getrandbits(32):08x}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise ClusterError(f"{path} cannot be written: {error.strerror}", where_hint()) from error


@contextlib.contextmanager
def locked(folder: Path, limit_s: float, *, make: bool = False) -> Iterator[bool]:
    """Holds `folder` against every other dmq, within `limit_s`; yields False if there is no such folder.

    The lock is the folder's own, so it ends with its holder, however that ends, and leaves nothing behind.
    """
    descriptor = _lock(folder, time.monotonic() + limit_s, make=make)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Removes a cluster's folder, its state file first, and the folders above it that have become empty."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    deadline = time.monotonic() + 5.0
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            # A process that was killed a moment ago may still have been writing.
            if time.monotonic() > deadline:
                raise ClusterError(f"{folder} cannot be removed: {error.strerror}", "Remove it by hand.") from error
            time.sleep(0.05)
    for empty in (folder.parent, folder.parent.parent):
        with contextlib.suppress(OSError):
            empty.rmdir()


def _lock(folder: Path, deadline: float, *, make: bool) -> int | None:
    while True:
        try:
            if make:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if make:
                continue
            return None
        except OSError as error:
            raise ClusterError(f"{folder} cannot be used: {error.strerror}", where_hint()) from error
        if _take(descriptor, deadline) and _is_same(descriptor, folder):
            return descriptor
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise OperationTimeoutError(
                f"another dmq is busy with {folder.name}", "Wait for it, or end it, and try again."
            )


def _take(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOCK_POLL_S)
        else:
            return True


def _is_same(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def where_hint() -> str:
    """What to do about a state directory that cannot be used."""
    return "Let DMQ_STATE_DIR name a folder that you may write to, on a disk with room."
