"""Starting one process per GPU, or several on the CPU."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

import torch
import torch.multiprocessing as mp
from detectron2.engine import launch as launch_on_gpus
from detectron2.utils import comm
from torch import distributed


def launch(
    main: Callable,
    num_processes: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple = (),
    device: str = "cuda",
) -> None:
    """Run ``main(*args)`` in ``num_processes`` processes on each of ``num_machines``.

    On "cuda" every process gets a GPU (nccl); on "cpu" they share the cores (gloo). ``dist_url``
    "auto" is for a single machine: a free port on "cuda", on "cpu" a temporary file. ``main`` must
    be importable, as for any spawned process; a single process calls it directly. ValueError for
    impossible numbers.
    """
    world_size = num_processes * num_machines
    if num_processes < 1 or not 0 <= machine_rank < num_machines:
        raise ValueError(
            f"cannot start {num_processes} processes on machine {machine_rank} of {num_machines}"
        )
    if world_size == 1:
        main(*args)
    elif device.startswith("cuda"):
        _check_gpus(num_processes)
        launch_on_gpus(main, num_processes, num_machines, machine_rank, dist_url, args)
    else:
        first_rank = machine_rank * num_processes
        with _meeting_place(dist_url, num_machines) as url:
            arguments = (main, first_rank, num_processes, world_size, url, args)
            mp.start_processes(
                _cpu_worker, arguments, nprocs=num_processes, start_method=_start_method()
            )


def _check_gpus(wanted: int) -> None:
    found = torch.cuda.device_count()
    if wanted > found:
        raise ValueError(f"--num-gpus {wanted}, but PyTorch finds {found} GPUs")


def _start_method() -> str:
    """The way to start a process that ends it without taking Python down first, where there is one.

    Gloo's threads release the tensors of the last exchange on their own time. One that waits for
    Python's lock while a spawned process takes Python down is ended by it in a destructor, and
    that aborts the process.
    """
    return "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"


@contextlib.contextmanager
def _meeting_place(dist_url: str, num_machines: int) -> Iterator[str]:
    """The URL at which the processes find each other; "auto" is a file in a folder of its own.

    A port that is free when it is looked for may be taken when it is used; a new folder is not.
    """
    if dist_url != "auto":
        yield dist_url
        return
    if num_machines > 1:
        raise ValueError("--dist-url must be given for more than one machine")
    with tempfile.TemporaryDirectory(prefix="mask_transformers_") as folder:
        yield f"file://{folder}/processes"


def _cpu_worker(
    local_rank: int,
    main: Callable,
    first_rank: int,
    num_processes: int,
    world_size: int,
    url: str,
    args: tuple,
) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_processes))
    distributed.init_process_group(
        "gloo", init_method=url, world_size=world_size, rank=first_rank + local_rank
    )
    try:
        comm.create_local_process_group(num_processes)
        comm.synchronize()
        main(*args)
    finally:
        distributed.destroy_process_group()
