"""What the numbers were measured on: cores, libraries, speed of memory; nothing that names the machine or its owner."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

_PACKAGES = (
    "synalign-agent", "numpy", "scipy", "torch", "scikit-learn", "gpytorch", "linear_operator", "apricot-select",
    "goodpoints", "clarabel", "sentence-transformers",
)  # fmt: skip
_BANDWIDTH_ROWS, _BANDWIDTH_DIMENSIONS = 2**20, 256
"""1 GiB of float32, far beyond any cache."""
_SQUARE = 4096
_REPEATS = 7


def describe() -> dict[str, Any]:
    """Return processor, memory and versions."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    np.ones((2, 2)) @ np.ones((2, 2))
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(physical_memory() / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "blas": [
            {key: library.get(key) for key in ("internal_api", "version", "num_threads", "architecture")}
            for library in threadpool_info()
            if library["user_api"] == "blas"
        ],
        "versions": versions,
    }


def speeds() -> dict[str, float]:
    """Measure what bounds every method: reading memory (a matrix-vector product) and multiplying matrices, the best of 7."""
    matrix = np.ones((_BANDWIDTH_ROWS, _BANDWIDTH_DIMENSIONS), np.float32)
    square = np.ones((_SQUARE, _SQUARE), np.float32)
    return {
        "read_gb_per_s": matrix.nbytes / _fastest(lambda: matrix @ matrix[0]) / 1e9,
        "gemm_gflop_per_s": 2.0 * _SQUARE**3 / _fastest(lambda: square @ square) / 1e9,
    }


def busy_seconds() -> float:
    """Return the CPU seconds that all processes together have had since start-up; 0 where the system does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system = stat.read_text(encoding="utf-8").split(maxsplit=4)[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def physical_memory() -> int:
    """Return the bytes of memory in this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory() -> int:
    """Return the most bytes that this process has had in memory.

    On Linux from /proc: `getrusage` starts from the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


class PeakMemory:
    """The most memory that a block needs beside what the process held before it, where Linux says so."""

    above_start: int | None = None
    """Bytes; None while the block runs, and on other systems."""
    _start: int | None = None

    def __enter__(self) -> PeakMemory:
        _give_back_free_memory()
        try:
            # Sets the peak of this process to what it has now (proc(5), clear_refs).
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return self
        self._start = peak_memory()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._start is not None:
            self.above_start = max(peak_memory() - self._start, 0)


def _give_back_free_memory() -> None:
    """Hand what was freed to the system (glibc only): what a block takes from it again would not show in the peak."""
    if platform.system() == "Linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def _fastest(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
