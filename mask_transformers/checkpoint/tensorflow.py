"""TensorFlow's checkpoint files, read without TensorFlow.

A checkpoint PREFIX is a table, PREFIX.index, in the format of LevelDB, from tensor names to what
the protocol buffer BundleEntryProto says of them, and shards PREFIX.data-0000i-of-0000n with the
bare values. Both of name-based and of object-based checkpoints are read, of any number of shards.
What TensorFlow can write besides gives an error: compressed tables, big-endian values, variables in
slices, and types that are not in ``DTYPES``. Checksums are compared in the table; of the values,
which would take minutes, only the sizes are.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

_SUFFIX = re.compile(r"\.(?:index|data-\d{5}-of-\d{5})$")
_ATTRIBUTE = "/.ATTRIBUTES/VARIABLE_VALUE"  # ends names of object-based checkpoints
# What no model needs: the graph of Python objects, counters, and the state of optimizers.
_BOOKKEEPING = re.compile(
    r"_CHECKPOINTABLE_OBJECT_GRAPH$|(?:save_counter|global_step)(?:/|$)"
    r"|(?:.*/)?(?:\w*_)?optimizer/|.*/\.OPTIMIZER_SLOT/"
)
_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER, _TRAILER = 48, 5  # bytes at the end of the table and of its blocks
# Number of the type in types.proto → numpy.
DTYPES = {1: "f4", 2: "f8", 3: "i4", 4: "u1", 5: "i2", 6: "i1", 9: "i8", 10: "?", 19: "f2"}
_STRING = 7


class _Entry(NamedTuple):
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    sliced: bool


def find_index(path: str | Path) -> Path | None:
    """The index file of a checkpoint, if there is one.

    ``path`` is its PREFIX, or any of its files.
    """
    index = Path(_SUFFIX.sub("", str(path)) + ".index")
    is_other_file = Path(path).is_file() and not _SUFFIX.search(str(path))
    return None if is_other_file or not index.is_file() else index


def read_tensorflow_checkpoint(index: Path) -> dict[str, np.ndarray]:
    """Variable → value, in TensorFlow's layout; ``/.ATTRIBUTES/VARIABLE_VALUE`` is taken off.

    Strings, the state of optimizers and other bookkeeping are left out.

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: the table is damaged, or a tensor of a kind that is not read, which is named.
    """
    table = dict(_table(index.read_bytes()))
    header = dict(_fields(table.pop(b"", b"")))
    shards, endianness = header.get(1, 0), header.get(2, 0)
    if not shards or endianness:
        raise ValueError("its header names no shards" if not shards else "it is big-endian")
    values = {}
    for key, message in table.items():
        # Names of parts of sliced variables start with a zero byte.
        if key.startswith(b"\0") or _BOOKKEEPING.match(name := key.decode()):
            continue
        entry = _entry(message)
        if entry.dtype != _STRING:
            shard = f"{index.stem}.data-{entry.shard:05d}-of-{shards:05d}"
            values[name.removesuffix(_ATTRIBUTE)] = _value(index.with_name(shard), name, entry)
    return values


def _value(shard: Path, name: str, entry: _Entry) -> np.ndarray:
    if entry.sliced:
        raise ValueError(f"{name} is stored in slices")
    if entry.dtype not in DTYPES:
        raise ValueError(f"{name} has the type {entry.dtype} of types.proto, which is not read")
    if not shard.is_file():
        raise FileNotFoundError(f"there is no {shard}, which holds {name}")
    dtype, count = np.dtype("<" + DTYPES[entry.dtype]), math.prod(entry.shape)
    if entry.size != count * dtype.itemsize:
        raise ValueError(f"{name} of shape {entry.shape} has {entry.size} bytes")
    value = np.fromfile(shard, dtype, count, offset=entry.offset)
    if len(value) < count:
        raise ValueError(f"{shard} ends within {name}")
    return value.reshape(entry.shape)


def _entry(message: bytes) -> _Entry:
    """BundleEntryProto, where numbers that are 0 are not written."""
    fields = dict(_fields(message))
    sides = [dict(_fields(side)) for number, side in _fields(fields.get(2, b"")) if number == 2]
    shape = tuple(side.get(1, 0) for side in sides)
    dtype, shard, offset, size = (fields.get(number, 0) for number in (1, 3, 4, 5))
    return _Entry(dtype, shape, shard, offset, size, 7 in fields)


def _fields(message: bytes) -> Iterator[tuple]:
    """Numbers and values, integers or bytes, of the fields of a protocol buffer."""
    position = number = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 in (0, 2):  # an integer, which may be the size of what follows
            number, position = _varint(message, position)
        size = {0: 0, 1: 8, 2: number, 5: 4}[tag & 7]
        yield tag >> 3, message[position : position + size] if tag & 7 else number
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The integer there, seven bits a byte, and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a table: blocks, found through a block of their places."""
    if len(data) < _FOOTER or not data.endswith(_MAGIC):
        raise ValueError("it is no table of TensorFlow, or is cut off")
    footer = data[-_FOOTER:]
    _, position = _varint(footer, 0)
    _, position = _varint(footer, position)  # the place of a block of metadata, which is empty
    for _, place in _block(data, footer[position:]):
        yield from _block(data, place)


def _block(data: bytes, place: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset, position = _varint(place, 0)
    end = offset + _varint(place, position)[0]
    trailer = data[end : end + _TRAILER]
    if len(trailer) < _TRAILER or _checksum(data[offset : end + 1]) != trailer[1:]:
        raise ValueError("its table is damaged: a checksum is wrong")
    if trailer[0]:
        raise ValueError(f"its table is compressed (kind {trailer[0]}), which is not read")
    restarts = int.from_bytes(data[end - 4 : end], "little")
    end -= 4 * (restarts + 1)
    key = b""
    while offset < end:  # an entry says how much of the last key it keeps
        kept, offset = _varint(data, offset)
        added, offset = _varint(data, offset)
        size, offset = _varint(data, offset)
        key = key[:kept] + data[offset : offset + added]
        offset += added
        yield key, data[offset : offset + size]
        offset += size


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as LevelDB stores it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C = [_remainder(byte) for byte in range(256)]
