"""Does a sentence get the same translation alone and in a batch? Counts the lines that differ, which is only rounding.

    python benchmarks/consistency.py runs/multi30k-en-de test.en

Prints, for greedy search and the recipe's beam, how many of the lines differ between one at a time, the recipe's
batches, and batches a quarter as large in another order.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from nmt import Translator
from nmt.formats import read_lines
from nmt.recipe import Search


def translations(translator: Translator, lines: list[str], settings: Search) -> list[str]:
    return [one.text for one in translator.translate(lines, settings=settings)]


def shuffled(translator: Translator, lines: list[str], settings: Search) -> list[str]:
    """The same in another order, in smaller batches; put back into the order of the lines."""
    order = random.Random(1).sample(range(len(lines)), len(lines))
    small = settings.model_copy(update={"batch_tokens": settings.batch_tokens // 4})
    found = dict(zip(order, translations(translator, [lines[i] for i in order], small), strict=True))
    return [found[i] for i in range(len(lines))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("source", type=Path)
    parser.add_argument("--lines", type=int, default=1000)
    given = parser.parse_args()
    translator = Translator.load(given.run)
    lines = list(read_lines(given.source))[: given.lines]
    for settings in (translator.settings.model_copy(update={"method": "greedy"}), translator.settings):
        alone = [translations(translator, [line], settings)[0] for line in lines]
        together = translations(translator, lines, settings)
        mixed = shuffled(translator, lines, settings)
        name = settings.method if settings.method == "greedy" else f"beam {settings.beam}"
        for label, other in (("in batches", together), ("in smaller batches, shuffled", mixed)):
            differ = sum(one != two for one, two in zip(alone, other, strict=True))
            print(f"{name}: alone against {label}: {differ} of {len(lines)} lines differ")


if __name__ == "__main__":
    main()
