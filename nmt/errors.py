"""What can go wrong through no fault of ours, said in one line that a user can act on.

Every message names the file, line or key, what was given, what is allowed and what to do. The command line prints
the message and exits with `status`; no traceback reaches a user.
"""

import signal


class NmtError(Exception):
    """The work failed: exit status 1."""

    status = 1


class CallError(NmtError):
    """The call was wrong (a flag, a path, a combination): exit status 2."""

    status = 2


class RecipeError(CallError):
    """A recipe, or a `--set`, that cannot be used: exit status 2."""


class DataError(NmtError):
    """A corpus, or a file of text, that cannot be used."""


class CheckpointError(NmtError):
    """A model folder that cannot be read or written, or another file that cannot be written."""


class StoppedError(NmtError):
    """Training was asked to stop by a signal, and everything is saved: exit status 128 + its number."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}, all is saved in {where}: go on with --resume")
        self.status = 128 + number


def ending() -> list[signal.Signals]:
    """The signals that end a process beside Ctrl-C: also that its terminal closed, which under nohup is ignored."""
    found = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        found.append(signal.SIGHUP)
    return found


class TrainingError(NmtError):
    """A training run that cannot go on."""
