"""nmt: machine translation that people train for their language pair on their computer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nmt.translate import Translation, Translator

__version__ = "0.1.0"
__all__ = ["Translation", "Translator", "__version__"]

# Threads of a product that wait for each other sleep instead of spinning: on a machine that also does something else
# training is then up to ten times as fast. OpenMP reads this when torch is imported, so it has to be said here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> object:
    """Bring in torch and the models only for those who ask for a translator."""
    if name in ("Translation", "Translator"):
        from nmt import translate

        return getattr(translate, name)
    raise AttributeError(f"module 'nmt' has no attribute '{name}'")
