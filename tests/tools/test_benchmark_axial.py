import json

import pytest
import torch


@pytest.fixture
def tool(load_benchmark):
    return load_benchmark("benchmark_axial")


@pytest.fixture
def cost(load_benchmark):
    return load_benchmark("axial_cost")


def test_the_layer_is_that_of_the_last_stage(tool, tiny_config):
    from mask_transformers.backbones.max_resnet import MaXResNet
    from mask_transformers.model_zoo import get_config

    with torch.device("meta"):
        stage = MaXResNet(get_config("max_deeplab_S_coco_panoptic")).stages["res5"]
        measured = tool.axial_attention()
    layers = [m for m in stage.modules() if isinstance(m, type(measured))]
    shapes = [{n: p.shape for n, p in layer.named_parameters()} for layer in (*layers, measured)]
    assert layers
    assert all(one == shapes[-1] for one in shapes)
    assert {layer.height.heads for layer in layers} == {measured.height.heads}


def test_counts_are_those_of_a_trace(tool, cost, load_benchmark):
    flops = load_benchmark("flops")
    x, layer = torch.zeros(1, cost.CHANNELS, 5, 5), tool.axial_attention().requires_grad_(False)
    total, _ = flops.count_flops(layer, x)
    assert total == cost.projection_flops(5) + cost.attention_flops(5)
    assert cost.axial_pairs(5) == 250
    assert cost.full_map_bytes(3) == 8 * 81 * 4


def test_full_attention_sums_over_all_pixels(tool, cost):
    layer, x = tool.FullAttention(), torch.randn(1, cost.CHANNELS, 2, 3)
    with torch.no_grad():
        found = layer(x)
        query, key, value = layer.qkv(x)[0].flatten(1).split([512, 512, 1024])
        expected = []
        for head in range(8):
            rows = slice(64 * head, 64 * (head + 1))
            weights = (query[rows].T @ key[rows] / 8).softmax(-1)
            expected.append(value[128 * head : 128 * (head + 1)] @ weights.T)
    torch.testing.assert_close(found[0].flatten(1), torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_the_fit_finds_both_terms(cost):
    sides = [21, 41, 61, 81]
    a, b = cost.fit_cost(sides, [3e-6 * s**2 + 2e-8 * 2 * s**3 for s in sides])
    assert (a, b) == (pytest.approx(3e-6), pytest.approx(2e-8))
    assert cost.fitted_cost((a, b), 10) == pytest.approx(3e-4 + 4e-5)
    steeper = cost.fit_cost(sides, [s**4 for s in sides])
    assert steeper[0] == 0.0  # where least squares alone would be negative
    assert steeper[1] > 0


def test_a_fit_needs_two_sizes(cost):
    with pytest.raises(ValueError, match=r"two or more sizes.*\[21\]"):
        cost.fit_cost([21, 21], [1.0, 2.0])


def test_the_tables(tool, monkeypatch, command_line, capsys):
    asked = []

    def fake(script, words):
        asked.append(tuple(words[1:5]))
        return {"seconds": int(words[4]) ** 3 / 1e6, "mib": 7.0}

    monkeypatch.setattr(tool, "in_process", fake)
    limit = tool.full_map_bytes(20)
    command_line("--sizes", "20", "10", "30", "--threads", "1", "--full-limit", str(limit))
    tool.main()
    output = capsys.readouterr().out
    assert "| 10×10 | 100 | 2,000 |" in output
    assert "Inference:" in output
    assert "| 20×20 | 8.0 | 8.0 (+0%) | 8.00 | 4.00 | 8.00 | 7 | 8.0 | 7 |" in output
    assert "| 30×30 | 27.0 | 27.0 (+0%) | 3.38 | 2.25 | 3.38 | 7 | – | – |" in output
    assert "Fitted: 0.0 ns · HW + 500.00 ns · HW·(H+W)." in output
    assert output.endswith("larger than 5 MiB (--full-limit): 30×30.\n")
    assert len(asked) == len(set(asked)) == 10


@pytest.mark.parametrize("form", ["axial", "full"])
@pytest.mark.parametrize("task", ["inference", "training"])
def test_one_measurement(tool, command_line, capsys, form, task):
    command_line("--measure", form, task, "--sizes", "4", "--threads", "1", "--repeats", "1")
    tool.main()
    report = json.loads(capsys.readouterr().out)
    assert report["seconds"] > 0
    assert report["mib"] >= 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "0", "21"], "--sizes can be 1 to 255"),
        (["--sizes", "21", "256"], "--sizes can be 1 to 255"),
        (["--sizes", "21"], "two or more"),
        (["--repeats", "0"], "--threads and --repeats must be 1 or more"),
        (["--measure", "round", "inference"], "--measure: one of axial, full"),
    ],
)
def test_argument_errors(tool, words, message, capsys):
    with pytest.raises(SystemExit):
        tool.parse_arguments(words)
    assert message in capsys.readouterr().err
