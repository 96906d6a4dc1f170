"""A page in a process of its own, for the benchmarks that visit one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def served(*command: str) -> Iterator[tuple[str, int]]:
    """The address and the process number of the page that `python command` opens."""
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address = next(found[1] for line in process.stderr if (found := re.search(r"open (http://\S+) in", line)))
            yield address, process.pid
        finally:
            process.terminate()
