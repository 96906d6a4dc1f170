"""Opens the page, which lies in `demo/` and is loaded when somebody asks for it."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from nmt import checkpoint
from nmt.errors import CallError
from nmt.progress import say
from nmt.recipe import shipped

LOGINS = "NMT_DEMO_AUTH"  # environment variable with `user:password` lines


def serve(
    folders: Sequence[str],
    changes: Sequence[str],
    corrections: Path,
    host: str,
    port: int | None,
    logins: Path | None,
    share: bool,
) -> None:
    """Open the page for these models until it is stopped; `changes` are of their search.

    Raises CallError, RecipeError, CheckpointError.
    """
    if not folders:
        raise CallError("nothing to open: name a model folder, for instance `nmt demo runs/starter-en-de`")
    credentials = read_logins(logins)
    if share and not credentials:
        raise CallError(f"--share opens the page to the world: set logins with --auth FILE or ${LOGINS} as well")
    host = host.strip("[]")  # of an IPv6 address
    _listen(host, port)
    for folder in (folder for system in folders for folder in checkpoint.split(system)):
        checkpoint.read(folder)  # before the page's libraries are loaded, which takes a while
    say("opening the page ...")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")  # else kernels for each shape of a batch pile up
    host = f"[{host}]" if ":" in host else host  # as the page's server wants it
    page().serve(folders, changes, corrections, host, port, credentials, share)


def _listen(host: str, port: int | None) -> None:
    """Raises CallError for an address that nobody can listen at, before the models are loaded."""
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        socket.create_server((host, port or 0), family=family).close()
    except UnicodeError:
        raise CallError(f"--host {host}: no address: choose another") from None
    except OSError as error:
        where = f"--host {host}" + (f" --port {port}" if port else "")
        reason = "something listens there already" if error.errno == errno.EADDRINUSE else error.strerror
        raise CallError(f"{where}: {reason}: choose another" + (", or leave --port out" if port else "")) from None


def page() -> ModuleType:
    """The package in `demo/`, whose place depends on how nmt was installed. Raises CallError without its libraries."""
    folder = shipped("demo")
    spec = importlib.util.spec_from_file_location(
        "nmt_demo", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["nmt_demo"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    try:
        return importlib.import_module("nmt_demo.app")
    except ModuleNotFoundError as error:
        raise CallError(
            f"the page needs {error.name}, which is not installed: pip install 'recurrent-nmt[demo]', in a checkout "
            f"pip install -e '.[demo]'"
        ) from None


def read_logins(file: Path | None) -> list[tuple[str, str]]:
    """Users and passwords, `user:password` a line, of a file or the environment. Raises CallError."""
    try:
        text = file.read_text(encoding="utf-8-sig") if file else os.environ.get(LOGINS)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CallError(f"--auth {file}: cannot be read: {reason}") from None
    if text is None:
        return []
    where, logins = f"--auth {file}" if file else f"${LOGINS}", []
    for number, line in enumerate(text.split("\n"), 1):
        user, colon, password = line.strip().partition(":")
        if not line.strip():
            continue
        if not (user and colon and password):
            raise CallError(f"{where}: line {number} is not `user:password`")
        logins.append((user, password))
    if not logins:
        raise CallError(f"{where}: empty: write a line `user:password` for each user")
    return logins
