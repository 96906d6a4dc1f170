"""nmt: machine translation that people train for their language pair on their computer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nmt.translate import Translation, Translator

__version__ = "0.1.0"
__all__ = ["Translation", "Translator", "__version__"]

# Threads that wait for each other spin for about a millisecond, then sleep. OpenMP would have them spin for much
# longer, and beside any other work on the machine training would be several times slower. Read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def __getattr__(name: str) -> object:
    """Bring in torch and the models only for those who ask for a translator."""
    if name in ("Translation", "Translator"):
        from nmt import translate

        return getattr(translate, name)
    raise AttributeError(f"module 'nmt' has no attribute '{name}'")
