"""Checkpoints of MaX-DeepLab as DeepLab2 writes them: all keys and shapes, in deeplab2_manifests/.

``{a,b}`` in a key stands for what it lists; a shape follows each key.
"""

import re
from pathlib import Path

import numpy as np

from mask_transformers.checkpoint.name_maps import native_name

FOLDER = Path(__file__).parent / "deeplab2_manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))
END = "/.ATTRIBUTES/VARIABLE_VALUE"  # ends keys in files
SLOT = "/.OPTIMIZER_SLOT/optimizer/"
# What a training saves besides; the names of counters and hyperparameters.
BOOKKEEPING = [
    "global_step",
    "save_counter",
    "optimizer/iter",
    "optimizer/learning_rate",
    "optimizer/_optimizer/decay",
    "backup_optimizer/iter",
]


def _expanded(name):
    match = re.search(r"\{([^}]*)\}", name)
    if not match:
        return [name]
    parts = [name[: match.start()] + one + name[match.end() :] for one in match[1].split(",")]
    return [tensor for part in parts for tensor in _expanded(part)]


def manifest(name):
    """Checkpoint key → shape."""
    shapes = {}
    for line in (FOLDER / f"{name}.txt").read_text().splitlines():
        keys, shape = line.split("\t")
        shapes |= dict.fromkeys(_expanded(keys), tuple(map(int, shape.split(","))))
    return shapes


def variables(name, model):
    """Key → value, in TensorFlow's layout, of a ``model`` that may have fewer blocks."""
    state = model.state_dict()
    return {
        key: np.ascontiguousarray(_to_tensorflow(key, shape, state[ours]).numpy())
        for key, shape in manifest(name).items()
        if (ours := native_name("MaXDeepLab", key)) in state
    }


def in_training(values):
    """The same as a training saves them: ends of keys, slots of an optimizer, and counters."""
    kept = {key + END: value for key, value in values.items()}
    moments = {
        f"{key}{SLOT}{slot}{END}": np.full_like(value, np.nan)
        for key, value in values.items()
        for slot in ("m", "slow")
        if key.endswith("/kernel")
    }
    return kept | moments | {key + END: np.array(7, "i8") for key in BOOKKEEPING}


def _to_tensorflow(key, shape, value):
    """A tensor of ours in TensorFlow's layout; ``shape`` there of the whole network's."""
    leaf = key.rpartition("/")[2]
    if leaf == "depthwise_kernel":
        return value.permute(2, 3, 0, 1)
    if leaf == "qkv_kernel":
        return value[..., 0].T
    if leaf == "kernel":
        if "/_pixel_" in key:  # of rows of pixels
            value = value[..., 0]
        return value.permute(*range(2, value.dim()), 1, 0)
    if leaf == "memory_feature":
        return value.T[None]
    # Norms of heads have several sides, of which the last one is smaller in a miniature.
    return value if leaf == "embeddings" else value.reshape(*shape[:-1], -1)
