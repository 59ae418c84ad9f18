"""Peak of resident memory, from the kernel's own account (Linux)."""

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def peak_above_resident(run: Callable[[], Any], times: int = 3) -> float:
    """MiB that ``times`` calls of ``run`` need at most, above what is resident before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    for _ in range(times):
        run()
    return round((_status("VmHWM") - before) / 1024)


def peaks_of_processes(script: str, names: Iterable[str]) -> dict[str, float]:
    """What ``script`` prints with ``--memory-of NAME`` and this command line: a process each."""
    peaks = {}
    for name in names:
        command = [sys.executable, script, *sys.argv[1:], "--memory-of", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        peaks[name] = float(output.split()[-1])
    return peaks


def _status(field: str) -> int:
    """The number of KiB in ``field``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
