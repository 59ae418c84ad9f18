import pytest
import torch


@pytest.fixture
def run(run_tool):
    """Function (arguments) → nothing; runs tools/strip_checkpoint.py."""
    return run_tool("strip_checkpoint")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "model_final.pth"
    model = {"weight": torch.randn(3, 4), "steps": torch.tensor(7)}
    torch.save({"model": model, "optimizer": {"state": {}}, "iteration": 3}, path)
    return path


@pytest.mark.parametrize(("flags", "dtype"), [((), torch.float32), (("--half",), torch.float16)])
def test_only_the_weights_are_left(run, source, tmp_path, flags, dtype):
    run(source, tmp_path / "new/weights.pth", *flags)
    before = torch.load(source, weights_only=True)["model"]
    content = torch.load(tmp_path / "new/weights.pth", weights_only=True)
    assert set(content) == {"model"}
    assert torch.equal(content["model"]["weight"], before["weight"].to(dtype))
    assert torch.equal(content["model"]["steps"], before["steps"])


def test_errors_are_one_line_and_lose_nothing(run, source, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: there is no checkpoint .*none\.pth$"):
        run(tmp_path / "none.pth", tmp_path / "weights.pth")
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    with pytest.raises(SystemExit, match=r"^error: .*broken\.pth is not a readable checkpoint"):
        run(tmp_path / "broken.pth", tmp_path / "weights.pth")
    before = source.read_bytes()
    with pytest.raises(SystemExit, match=r"^error: .*model_final\.pth exists already"):
        run(source, source)
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "weights" in path.name] == []


def test_what_cannot_be_read_again_is_not_written(run, source, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*weights\.pkl must end in \.pth"):
        run(source, tmp_path / "weights.pkl")
    torch.save({"model": {"large": torch.tensor([1e6])}}, tmp_path / "large.pth")
    with pytest.raises(SystemExit, match=r"^error: large has values that 16 bits cannot hold"):
        run(tmp_path / "large.pth", tmp_path / "weights.pth", "--half")
    assert not (tmp_path / "weights.pth").exists()
