"""What is said goes to standard error, and the work goes on where nobody hears it any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = (
    "from nmt.progress import Bar, say\n"
    "say('one'); say('two')\n"
    "with Bar('work', 2) as bar:\n"
    "    bar.say('three'); bar.update(2)\n"
    "print('done')"
)


def ran(shell: str) -> subprocess.CompletedProcess[str]:
    home = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, SCRIPT], capture_output=True, text=True, env=home, check=False
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("where", ["2> /dev/full", "2>&-", "2> >(exec true; sleep 1)"])
def test_the_work_goes_on_where_nothing_can_be_said(where: str) -> None:
    found = ran(f'"$1" -c "$2" {where}')
    assert (found.returncode, found.stdout) == (0, "done\n")


def test_what_is_said_is_not_a_result() -> None:
    found = ran('"$1" -c "$2"')
    assert (found.stdout, found.stderr.splitlines()) == ("done\n", ["one", "two", "three"])
