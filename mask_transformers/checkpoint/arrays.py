"""Reading pickles that hold arrays and nothing that could run code."""

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np

# What numpy names when it pickles an array, in the numpy that is installed.
_OLD = np.zeros(1).__reduce__()[0]
_NEW = np.zeros(1).__reduce_ex__(5)[0]
_SCALAR = np.float32(0).__reduce__()[0]

_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[_core + ".multiarray", "_reconstruct"] = _OLD
    _ALLOWED[_core + ".multiarray", "scalar"] = _SCALAR
    _ALLOWED[_core + ".numeric", "_frombuffer"] = _NEW


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, but only plain containers and numpy arrays are read"
            )
        return _ALLOWED[module, name]


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into pickles of protocol 2."""
    return text.encode(encoding)


def read_pickle(path: Path) -> Any:
    """The content of a pickle of containers and numpy arrays; UnpicklingError for others."""
    with path.open("rb") as file:
        return _ArrayUnpickler(file, encoding="latin1").load()
