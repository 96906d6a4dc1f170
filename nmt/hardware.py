"""What the machine can do: device, precision, threads and memory, chosen from what the hardware reports.

A CPU computes in bfloat16 where it has instructions for it (AVX-512 BF16 or AMX), else in float32 on the faster of
the two product kernels. A GPU computes in bfloat16 where it can, else in float16.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from nmt.errors import RecipeError

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of a core that a container may use, of how many
X86 = ("x86_64", "AMD64")
_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """The choices for one process."""

    device: torch.device
    precision: str
    threads: int

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Where products are computed in the chosen precision; nothing for float32."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])

    def __str__(self) -> str:
        if self.device.type == "cuda":
            where = torch.cuda.get_device_name(self.device)
        elif self.device.type == "mps":
            where = "Apple GPU (untested)"
        else:
            where = f"CPU, {self.threads} threads, {torch.backends.cpu.get_cpu_capability()}"
        return f"{where}, {self.precision}"


def cores() -> int:
    """The cores that this process may use, of which a container may have a share."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit, "max"
        limit, period = map(int, QUOTA.read_text(encoding="ascii").split())
        count = min(count, max(1, round(limit / period)))
    return count


def choose(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Hardware:
    """Choose and set up the device for this process.

    Raises RecipeError for a device that is not there, or a precision that it cannot compute in.
    """
    kind = _device(device)
    together = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # processes that torchrun started on this machine
    torch.set_num_threads(threads or max(1, cores() // together))
    keep_memory()
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")  # kernels, one for each shape; else 1,024
    if kind != "cpu" or (platform.machine() in X86 and not torch.cpu._is_amx_tile_supported()):
        # on an x86 CPU without AMX "medium" is another kernel, not another precision; on a GPU it is TensorFloat-32
        torch.set_float32_matmul_precision("medium")
    best = "float32"
    if kind == "cuda":
        best = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    elif kind == "cpu" and torch.cpu._is_avx512_bf16_supported():
        best = "bf16"
    if precision == "fp16" and kind != "cuda":
        raise RecipeError("training.precision: 'fp16' needs a CUDA device: use bf16, float32 or auto")
    if precision == "bf16" and kind == "cpu" and not trains_in_bf16():
        raise RecipeError("training.precision: 'bf16' needs a CPU with AVX-512, or a GPU: use float32 or auto")
    return Hardware(torch.device(kind), best if precision == "auto" else precision, torch.get_num_threads())


def trains_in_bf16() -> bool:
    """Whether this CPU has all of torch's layers in bfloat16; without AVX-512 there is no LSTM."""
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return not there or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _device(wanted: str) -> str:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there[wanted]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise RecipeError(f"training.device: '{wanted}' is not on this machine, which has {found}: use one or auto")
    return wanted


def computed_in(x: torch.Tensor) -> torch.dtype:
    """What products of x are computed in: autocast's choice where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


@contextlib.contextmanager
def sharing(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that share out the cores, for work whose operations are too short to be spread over all of them."""
    threads = torch.get_num_threads()
    try:
        each = max(1, threads // workers)
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)  # what those set counts for threads to come as well


def keep_memory() -> None:
    """Have glibc keep freed memory instead of giving it back to the kernel at each step and faulting it in again.

    But not the few largest tensors, whose sizes change from batch to batch: kept, they leave holes in it.
    """
    trim_threshold, mmap_threshold = -1, -3
    _mallopt({mmap_threshold: 1 << 24, trim_threshold: (1 << 31) - 1})


def spare_memory() -> None:
    """The opposite, for a server of many threads that runs for weeks: it gives back what is free, from two heaps."""
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    _mallopt({arena_max: 2, mmap_threshold: 1 << 18, trim_threshold: 1 << 19})


def _mallopt(options: Mapping[int, int]) -> None:
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        for option, value in options.items():
            libc.mallopt(option, value)
