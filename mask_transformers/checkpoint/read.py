"""Reading state dicts from files without running any code in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager

from .arrays import read_pickle
from .tensorflow import find_index, read_tensorflow_checkpoint

# Where training scripts put the state dict inside what they save; the first that is there wins.
_NESTED = ("state_dict_ema", "state_dict", "model")


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in a ``.pth``, ``.pkl`` or ``.safetensors`` file, also inside a checkpoint.

    ``path`` may be anything that Detectron2's path manager resolves, or the prefix of the files of
    a TensorFlow checkpoint, whose names and layouts stay. "module.", which parallel training puts
    before every name, is taken off. FileNotFoundError or ValueError names the file that is missing
    or cannot be read.
    """
    local = find_index(path) or Path(PathManager.get_local_path(str(path)))
    if not local.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        state = _read(local)
    except Exception as error:
        raise ValueError(f"{path} is not a readable checkpoint: {error}") from error
    for key in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not state:
        raise ValueError(
            f"{path} holds no state dict, neither by itself nor under {', '.join(_NESTED)}"
        )
    try:
        return {name.removeprefix("module."): as_tensor(name, v) for name, v in state.items()}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def as_tensor(name: str, value: Any) -> torch.Tensor:
    """A tensor or array as a tensor; ValueError gives the ``name`` of anything else."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.array(value))
    raise ValueError(f"{name} is no tensor or array, but {type(value).__name__}")


def _read(path: Path) -> Any:
    if path.suffix == ".pkl":
        return read_pickle(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.suffix == ".index":
        return read_tensorflow_checkpoint(path)
    return torch.load(path, map_location="cpu", weights_only=True)
