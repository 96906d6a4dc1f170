"""What every system under measurement tells: updates as they happen, a line of JSON at the end. Python alone."""

from __future__ import annotations

import json
import resource
import time
from typing import NoReturn

WARM = 5  # updates that are not counted: memory is mapped and kernels are made in them


class Meter:
    """Counts target tokens (the end of the sentence among them, padding not) until so many updates are done."""

    def __init__(self, updates: int) -> None:
        self.updates, self.done, self.tokens = updates, 0, 0
        self.began = time.perf_counter()
        self.first = 0.0

    def tick(self, tokens: int) -> None:
        """An update over so many tokens is done. Leaves the process after the last one."""
        self.done += 1
        if self.done == 1:
            self.first = time.time()
        if self.done > WARM:
            self.tokens += tokens
        elif self.done == WARM:
            self.began = time.perf_counter()
        if self.done == WARM + self.updates:
            self.tell()

    def tell(self) -> NoReturn:
        seconds = time.perf_counter() - self.began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"tokens/s": self.tokens / seconds, "MB": peak, "first update": self.first}), flush=True)
        raise SystemExit
