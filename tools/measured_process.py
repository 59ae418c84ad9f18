"""A measurement in a process of its own, which nothing before it can have warmed or filled."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from peak_memory import peak_above_resident


def time_and_peak(run: Callable[[], Any], runs: int) -> dict[str, float]:
    """Median seconds of ``runs`` calls after a first one, and MiB above what is resident before.

    The peak is that of all calls.
    """
    seconds: list[float] = []

    def timed() -> None:
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)

    peak = peak_above_resident(timed, times=runs + 1)
    return {"seconds": statistics.median(seconds[1:]), "mib": peak}


def in_process(script: str, words: Sequence[str]) -> dict:
    """What ``script`` with the arguments ``words`` prints in its last line, as JSON.

    RuntimeError when it fails: what it said is on the console.
    """
    command = [sys.executable, script, *words]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode} of {' '.join(command)}")
    return json.loads(done.stdout.splitlines()[-1])


def median_of(reports: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each number that the ``reports`` have."""
    return {key: statistics.median(report[key] for report in reports) for key in reports[0]}
