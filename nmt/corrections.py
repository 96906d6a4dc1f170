"""Corrected translations, kept one file per pair, to train on.

    corrections/en-de.tsv    the columns en, de, time, model; `nmt tune` learns from it

A row is added in one write under a lock, so that nothing is lost or torn when several visitors correct at once. Of the
rows of one source the last counts, for whoever reads the file (see `nmt.formats`).
"""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

from nmt.disk import lock
from nmt.errors import DataError
from nmt.formats import CORRECTED, one_line


def append(folder: Path, languages: tuple[str, str], source: str, target: str, model: str) -> tuple[Path, bool]:
    """Add a pair to the file of its languages; the file, and whether it was not there as the last of its source.

    Raises DataError where it cannot be written, is empty, or is no text.
    """
    fields = [one_line(" ".join(field.split()), "a correction") for field in (source, target)]
    if not all(fields):
        raise DataError("a correction needs a source sentence and a translation: one of them is empty")
    path = folder / f"{languages[0]}-{languages[1]}.tsv"
    pair = "\t".join(fields)
    model = " ".join(model.encode("utf-8", "replace").decode().split())  # the name of a folder may have anything in it
    row = f"{pair}\t{datetime.now(UTC).isoformat(timespec='seconds')}\t{model}\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            lock(handle, wait=True)
            kept = path.read_bytes()
            same = (line for line in reversed(kept.splitlines()) if line.startswith(f"{fields[0]}\t".encode()))
            if next(same, b"").startswith(f"{pair}\t".encode()):
                return path, False
            head = "" if kept else "\t".join([*languages, *CORRECTED]) + "\n"
            end = "" if kept.endswith(b"\n") or not kept else "\n"  # which an editor may have left out
            try:
                if os.write(handle, added := (end + head + row).encode()) < len(added):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, len(kept))
                raise
        finally:
            os.close(handle)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}: nothing was kept, try again") from None
    return path, True
