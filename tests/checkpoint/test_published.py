import hashlib

import pytest

from mask_transformers.checkpoint.published import check_hash, fetch
from mask_transformers.model_zoo import PUBLISHED, names

CONTENT = b"weights"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "download.pkl"
    file.write_bytes(CONTENT)
    return file


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_the_hash_in_the_name_is_that_of_the_file(path, algorithm, suffix):
    prefix = hashlib.new(algorithm, CONTENT).hexdigest()[:6]
    check_hash(path, f"https://host/model_final_{prefix}{suffix}")


def test_another_hash_names_file_and_both_hashes(path):
    found = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(ValueError, match=rf"download\.pkl.*begin with 123abc.*{found}"):
        check_hash(path, "https://host/model_final_123abc.pkl")


def test_a_name_without_hash_cannot_be_checked(path):
    with pytest.raises(ValueError, match="has no hash in its file name"):
        check_hash(path, "https://host/model_final.pkl")


def test_fetch_checks_what_it_fetched(tmp_path):
    prefix = hashlib.sha256(CONTENT).hexdigest()[:6]
    good, bad = tmp_path / f"model_{prefix}.pkl", tmp_path / "model_000000.pkl"
    for file in (good, bad):
        file.write_bytes(CONTENT)
    assert fetch(str(good)) == good
    with pytest.raises(ValueError, match="not the published file"):
        fetch(str(bad))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_are_in_the_zoo_and_have_a_hash(path, name):
    assert name in names()
    assert PUBLISHED[name].score > 0
    if PUBLISHED[name].url is None:
        return
    with pytest.raises(ValueError, match=r"begin with [0-9a-f]{6}"):
        check_hash(path, PUBLISHED[name].url)
