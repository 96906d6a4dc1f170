"""What the tests share: one thread, a seed per test, toy batches and toy tokenizers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is tested is the same on every machine
import torch

from nmt.hardware import Hardware

pytest_plugins = ["toy"]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would children


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(7)
    yield
    torch.set_num_threads(1)  # a test of `hardware.choose` may have changed these
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def cpu() -> Hardware:
    return Hardware(torch.device("cpu"), "float32", 1)
