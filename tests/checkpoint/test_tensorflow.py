"""Files that TensorFlow wrote (tensorflow_files/write.py), and what is wrong with others."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mask_transformers.checkpoint import read_state_dict
from mask_transformers.checkpoint.tensorflow import find_index

FILES = Path(__file__).parent / "tensorflow_files"
TYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]


@pytest.fixture
def copied(tmp_path):
    """Function from the name of a checkpoint to the prefix of a copy of it."""

    def copy(name):
        for path in FILES.glob(f"{name}.*"):
            shutil.copy(path, tmp_path)
        return tmp_path / name

    return copy


def test_an_object_based_checkpoint():
    found = read_state_dict(FILES / "objects")
    wanted = {"encoder/memory_feature": torch.ones(1, 2, 3)}
    for i in range(10):
        values = torch.arange(i, i + 6, dtype=torch.float32)
        wanted[f"encoder/_block{i}/_conv/kernel"] = values.view(1, 1, 2, 3)
        wanted[f"encoder/_block{i}/_batch_norm/gamma"] = values[:3] / 8
    assert found.keys() == wanted.keys()  # no optimizer, counter or graph
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_shards_and_types():
    found = read_state_dict(FILES / "shards")
    for dtype in TYPES:
        value = found.pop("a/half" if dtype == "float16" else f"a/{dtype}")
        assert value.numpy().dtype == dtype
        assert np.array_equal(value, np.array([[0, 1], [2, 3]]).astype(dtype))
    assert found.pop("b/scalar").item() == 7
    assert found.pop("b/empty").shape == (0, 3)
    assert found.pop("b/float32").tolist() == [0.5, 1.5, 2.5]
    assert not found  # no text


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00002"])
def test_a_checkpoint_may_be_named_by_any_of_its_files(suffix):
    assert find_index(FILES / f"shards{suffix}") == FILES / "shards.index"
    assert len(read_state_dict(str(FILES / f"shards{suffix}"))) == 12


def test_other_files_are_no_tensorflow_checkpoints(copied):
    prefix = copied("shards")
    prefix.write_bytes(b"")  # a file of its own
    assert find_index(prefix) is None
    assert find_index(prefix.with_name("none.index")) is None
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*none"):
        read_state_dict(prefix.with_name("none"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("slices", "weight is stored in slices"),
        ("bfloat16", r"weight has the type 14 of types\.proto, which is not read"),
    ],
)
def test_what_is_not_read_is_named(name, reason):
    with pytest.raises(ValueError, match=f"{name} is not a readable checkpoint: {reason}"):
        read_state_dict(FILES / name)


def test_a_missing_shard_is_named(copied):
    prefix = copied("shards")
    prefix.with_name("shards.data-00001-of-00002").unlink()
    with pytest.raises(ValueError, match=r"there is no .*shards\.data-00001-of-00002, .* b/empty"):
        read_state_dict(prefix)


def test_a_shard_that_is_cut_off_is_named(copied):
    shard = copied("shards").with_name("shards.data-00001-of-00002")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data-00001-of-00002 ends within b/float32"):
        read_state_dict(shard)


@pytest.mark.parametrize("size", [0, 47, 100, -1])
def test_a_table_that_is_cut_off_is_told(copied, size):
    index = copied("shards").with_suffix(".index")
    index.write_bytes(index.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"shards\.index .*no table of TensorFlow, or is cut off"):
        read_state_dict(index)


@pytest.mark.parametrize("position", [0, 100, 370, 372, 400])
def test_a_damaged_table_is_told(copied, position):
    index = copied("shards").with_suffix(".index")
    data = bytearray(index.read_bytes())
    data[position] ^= 1
    index.write_bytes(data)
    with pytest.raises(ValueError, match="its table is damaged: a checksum is wrong"):
        read_state_dict(index)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"compression": 1}, r"compressed \(kind 1\)"),
        ({"endianness": 1}, "it is big-endian"),
        ({"shards": 0}, "its header names no shards"),
    ],
)
def test_kinds_that_are_not_read_are_told(write_tensorflow, tmp_path, said, reason):
    write_tensorflow(tmp_path / "model", {"weight": np.ones(2)}, **said)
    with pytest.raises(ValueError, match=reason):
        read_state_dict(tmp_path / "model")


def test_bookkeeping_is_left_out(write_tensorflow, tmp_path):
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    names = [
        f"encoder/kernel{end}",
        f"encoder/kernel/.OPTIMIZER_SLOT/optimizer/average{end}",
        f"optimizer/learning_rate{end}",
        f"backup_optimizer/_optimizer/iter{end}",
        f"save_counter{end}",
        f"global_step{end}",
        "global_step",
        "global_steps",
    ]
    write_tensorflow(tmp_path / "model", {name: np.ones(2, "f4") for name in names})
    assert set(read_state_dict(tmp_path / "model")) == {"encoder/kernel", "global_steps"}
