"""What is written is there whole or not at all, whatever kills the process; and a folder has one writer at a time.

A file is written under another name beside its place, `.name.1a2b3c4d.part`, and takes it when it is on the disk. While
it is written it is locked, so that `clean` tells what a killed process left from what is under way.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nmt.errors import CallError, CheckpointError

if sys.platform != "win32":
    import fcntl

UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.part")
DAY = 24 * 3600  # seconds after which nobody writes a file any more, where locks cannot tell


def lock(handle: int, wait: bool = False) -> bool | None:
    """Have what is open to oneself until it is closed: whether that worked, None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # of a file system that has none, or none of this kind
        return None
    return True


@contextlib.contextmanager
def _own(path: Path) -> Iterator[bool | None]:
    """Have a file or folder to oneself, with what `lock` says; on Windows it stays closed, so that it can be moved."""
    if sys.platform == "win32":
        yield None
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        yield lock(handle)
    finally:
        os.close(handle)


def _unfinished(path: Path) -> Path:
    """A name of its own beside `path`, on the same disk, for what will take its place."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when all went well. Raises OSError."""
    # named before it is made: a signal in between must find it
    temporary = _unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        if path.exists():
            shutil.copymode(path, temporary)  # who may read it is not ours to change
        with _own(temporary):
            yield temporary
            with open(temporary, "r+b") as file:  # to read alone, Windows has nothing to sync
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `whole`, for a file that a user knows of. Raises CheckpointError, on a full disk for instance."""
    try:
        with whole(path) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error, FileExistsError):
            reason = f"{error.filename} is a file, no folder"
        raise CheckpointError(f"{path}: cannot be written: {reason}; what was saved before is untouched") from None


@contextlib.contextmanager
def new(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when all went well. Raises CheckpointError where that cannot be made."""
    temporary = _unfinished(folder)
    try:
        temporary.mkdir(parents=True)
        with _own(temporary):
            clean(folder.parent)
            yield temporary
            os.rename(temporary, folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be made: {error.strerror}: choose another with --out") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes from writing to it; the lock ends with the process, however it ends.

    Raises CallError where another process has it, or where it cannot be made.
    """
    own = not folder.exists()
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if stack.enter_context(_own(folder)) is False:
                raise CallError(f"{folder}: another process writes to it: wait, or choose another folder")
        except OSError as error:
            if not folder.is_dir():
                raise CallError(f"{folder}: cannot be made: {error.strerror}: choose another with --out") from None
            # else what is written there will tell
        try:
            yield
        finally:
            if own:
                with contextlib.suppress(OSError):
                    folder.rmdir()  # only where nothing was written


def clean(*folders: Path) -> None:
    """Remove the files and folders in them that a killed process left half written."""
    for path in (path for folder in folders for path in folder.glob(".*.part")):
        if UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(OSError):  # another was faster
                if _forsaken(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _forsaken(path: Path) -> bool:
    """Whether nobody writes it any more."""
    with _own(path) as free:
        return stale(path) if free is None else free


def stale(path: Path) -> bool:
    """Whether it was written a day ago or before. Raises OSError."""
    return time.time() - path.stat().st_mtime > DAY


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
