"""Writes the files beside this one; it alone needs TensorFlow (2.21 made them).

python tests/checkpoint/tensorflow_files/write.py
"""

from pathlib import Path

import tensorflow as tf

HERE = Path(__file__).parent
TYPES = ["half", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]


def _save(prefix, tensors, slices=""):
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[slices] * len(tensors),
        tensors=list(tensors.values()),
    )


def _layer(first):
    """Attributes as in DeepLab2; values count up from ``first``."""
    layer = tf.Module()
    layer._conv, layer._batch_norm = tf.Module(), tf.Module()
    values = tf.range(first, first + 6, dtype=tf.float32)
    layer._conv.kernel = tf.Variable(tf.reshape(values, [1, 1, 2, 3]))
    layer._batch_norm.gamma = tf.Variable(values[:3] / 8)
    return layer


def _objects(prefix):
    """Object-based, with a counter and an optimizer that has slots."""
    model = tf.Module()
    for i in range(10):  # so many names that some share no prefix with the one before
        setattr(model, f"_block{i}", _layer(i))
    model.memory_feature = tf.Variable(tf.ones([1, 2, 3]))
    optimizer = tf.compat.v1.train.MomentumOptimizer(0.1, 0.9)
    optimizer.apply_gradients([(tf.zeros([1, 2, 3]), model.memory_feature)])
    step = tf.Variable(12, dtype=tf.int64)
    tf.train.Checkpoint(encoder=model, optimizer=optimizer, global_step=step).write(str(prefix))


def _shards(prefix):
    """Two shards, as several hosts write them, with a tensor of every type that is read."""
    parts = [f"{prefix}.part{i}" for i in range(2)]
    _save(parts[0], {f"a/{t}": tf.cast([[0, 1], [2, 3]], t) for t in TYPES})
    rest = {
        "b/scalar": tf.constant(7, tf.int64),
        "b/empty": tf.zeros([0, 3]),
        "b/text": tf.constant(["left", "out"]),
        "b/float32": tf.constant([0.5, 1.5, 2.5]),
    }
    _save(parts[1], rest)
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=parts, destination_prefix=str(prefix), delete_old_dirs=False
    )


if __name__ == "__main__":
    _objects(HERE / "objects")
    _shards(HERE / "shards")
    _save(HERE / "bfloat16", {"weight": tf.zeros([2], tf.bfloat16)})
    _save(HERE / "slices", {"weight": tf.zeros([2, 2])}, "4 2 0,2:0,2")
