import pytest
import swin_reference as reference
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

from mask_transformers.backbones import SwinBackbone
from mask_transformers.backbones.swin import VARIANTS
from mask_transformers.backbones.swin_block import SwinBlock
from mask_transformers.backbones.swin_windows import (
    from_windows,
    join_borders,
    relative_position_index,
    shift_masks,
    split_borders,
    to_windows,
)
from mask_transformers.config import add_mask_transformer_config
from mask_transformers.engine.optimizer import parameter_groups

# Height and width in pixels, or tokens: multiples of the window, odd, smaller than a window.
SIZES = [(96, 48), (71, 90), (33, 5), (1, 1)]
MAPS = [(14, 21), (8, 15), (7, 7), (7, 10), (3, 6), (1, 9)]


def _backbone(window=3, **options):
    """A miniature in which every parameter matters, the biases more than in a trained model."""
    options = {"drop_path_rate": 0.0, **options}
    model = SwinBackbone(variant="miniature", window_size=window, **options)
    return _disturb(model)


def _disturb(module):
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def _losses(model, images):
    features = model(images)
    sum(feature.square().mean() for feature in features.values()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [3, 4])
def test_features_are_those_of_the_published_model(window, size):
    model = _backbone(window).double().eval()
    image = torch.randn(3, *size, dtype=torch.float64)
    _, depths, heads = VARIANTS["miniature"]
    with torch.no_grad():
        expected = reference.backbone(model.state_dict(), image, depths, heads, window)
        features = model(image[None])
    for feature, wanted in zip(features.values(), expected, strict=True):
        torch.testing.assert_close(feature[0], wanted)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", MAPS)
def test_block_is_that_of_the_published_model(size, shifted):
    block = _disturb(SwinBlock(6, heads=2, window=7, shifted=shifted)).double()
    state = {f"b.{name}": value for name, value in block.state_dict().items()}
    x = torch.randn(2, *size, 6, dtype=torch.float64)
    with torch.no_grad():
        output = block(x)
        for found, one in zip(output, x, strict=True):
            expected = reference.block(state, "b", one, 2, 7, 3 if shifted else 0)
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [(7, 7), (8, 15)])
def test_gradients_of_the_block_are_those_of_the_published_model(size):
    block = _disturb(SwinBlock(4, heads=2, window=4, shifted=True)).double()
    state = {f"b.{n}": p.detach().clone().requires_grad_() for n, p in block.named_parameters()}
    x = torch.randn(*size, 4, dtype=torch.float64)
    weights = torch.randn_like(x)
    (block(x[None])[0] * weights).sum().backward()
    (reference.block(state, "b", x, 2, 4, 2) * weights).sum().backward()
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(parameter.grad, state[f"b.{name}"].grad)


def test_shift_reaches_neighbouring_windows_but_not_the_opposite_border():
    block = _disturb(SwinBlock(8, heads=2, window=4, shifted=True)).double()
    x = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    changed = x.clone()
    changed[:, 3, 3] += torch.randn(8)
    with torch.no_grad():
        reached = (block(changed) - block(x)).abs().sum(-1)[0] > 1e-9
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:6, 2:6] = True
    assert torch.equal(reached, expected)
    changed = x.clone()
    changed[:, 0, 0] += torch.randn(8)
    with torch.no_grad():
        reached = (block(changed) - block(x)).abs().sum(-1)[0] > 1e-9
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:2, :2] = True
    assert torch.equal(reached, expected)


def test_cutting_and_joining_are_inverse():
    x = torch.randn(2, 9, 6, 4)
    assert torch.equal(from_windows(to_windows(x, 3), 3, x.shape), x)
    assert torch.equal(to_windows(x, 3)[1], x[0, :3, 3:].reshape(9, 4))
    parts = split_borders(x, 3)
    assert [tuple(part.shape[1:3]) for part in parts] == [(6, 3), (6, 3), (3, 3), (3, 3)]
    assert torch.equal(join_borders(parts), x)
    assert to_windows(split_borders(x[:, :3], 3)[0], 3).shape == (0, 9, 4)


def test_tables_of_a_window():
    assert relative_position_index(2).tolist() == [
        [4, 3, 1, 0],
        [5, 4, 2, 1],
        [7, 6, 4, 3],
        [8, 7, 5, 4],
    ]
    masks = shift_masks(2, 1)
    assert not masks[0].any()
    assert masks[1, 0].tolist() == [0, -100, 0, -100]
    assert masks[2, 0].tolist() == [0, 0, -100, -100]
    assert masks[3, 0].tolist() == [0, -100, -100, -100]


@pytest.mark.parametrize("size", SIZES)
def test_shapes_are_those_promised_at_any_size(size):
    model = _backbone()
    shapes = model.output_shape()
    with torch.no_grad():
        features = model(torch.randn(2, 3, *size))
    assert list(features) == list(shapes) == ["res2", "res3", "res4", "res5"]
    assert [shape.stride for shape in shapes.values()] == [4, 8, 16, 32]
    for name, feature in features.items():
        stride = shapes[name].stride
        expected = (2, shapes[name].channels, -(-size[0] // stride), -(-size[1] // stride))
        assert feature.shape == expected


@pytest.mark.parametrize(
    ("variant", "window", "count"),
    # Without classifier, with the output norms.
    [
        ("tiny", 7, 27_520_698),
        ("small", 7, 48_838_602),
        ("base", 12, 86_880_376),
        ("large", 12, 195_201_204),
    ],
)
def test_parameters_of_the_variants(variant, window, count):
    with torch.device("meta"):
        model = SwinBackbone(variant=variant, window_size=window)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_batched_equals_single():
    model = _backbone().eval()
    images = torch.randn(3, 3, 50, 70)
    with torch.no_grad():
        batched, single = model(images), model(images[1:2])
    for name in batched:
        torch.testing.assert_close(batched[name][1:2], single[name], rtol=1e-4, atol=1e-5)


def test_every_parameter_learns():
    for name, gradient in _losses(_backbone(), torch.randn(1, 3, 70, 50)).items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name


def test_recomputed_blocks_give_the_same_gradients():
    images = torch.randn(2, 3, 40, 56)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        model = _backbone(drop_path_rate=0.5, activation_checkpointing=checkpointing)
        gradients.append(_losses(model, images))
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_recomputed_blocks_keep_less(monkeypatch):
    def saved(checkpointing):
        sizes = []
        model = _backbone(activation_checkpointing=checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(x.numel()) or x, lambda x: x
        ):
            model(torch.randn(1, 3, 48, 48))
        return sum(sizes)

    assert saved(True) < 0.5 * saved(False)


def test_stochastic_depth_increases_over_all_blocks():
    model = SwinBackbone(variant="miniature", window_size=3, drop_path_rate=0.7)
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for s in model.layers for b in s.blocks]
    assert rates == pytest.approx([0.1 * i for i in range(8)])
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(model(images)["res5"], model(images)["res5"])
        model.eval()
        assert torch.equal(model(images)["res5"], model(images)["res5"])


def test_mixed_precision_runs_in_the_lower_one():
    model, images = _backbone().eval(), torch.randn(1, 3, 40, 40)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = model(images)
    with torch.no_grad():
        expected = model(images)
    for name, feature in features.items():
        assert (feature - expected[name]).norm() < 0.1 * expected[name].norm()


def test_position_biases_and_norms_do_not_decay():
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM = 0.05, 0.0
    model = torch.nn.ModuleDict({"backbone": _backbone()})
    free = {
        id(parameter)
        for group in parameter_groups(cfg, model)
        for parameter in group["params"]
        if group["weight_decay"] == 0
    }
    names = {name for name, parameter in model.named_parameters() if id(parameter) in free}
    wanted = {n for n in dict(model.named_parameters()) if "norm" in n or "bias_table" in n}
    assert names == wanted
    assert len(names) == 2 * 16 + 8 + 2 * (1 + 4 + 3)


def test_built_from_a_config():
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    cfg.MODEL.SWIN.VARIANT, cfg.MODEL.SWIN.WINDOW_SIZE = "miniature", 5
    cfg.MODEL.SWIN.DROP_PATH_RATE, cfg.MODEL.SWIN.ACTIVATION_CHECKPOINTING = 0.2, True
    build = BACKBONE_REGISTRY.get("build_swin_backbone")
    model = build(cfg, ShapeSpec(channels=3))
    assert model.layers[3].blocks[1].attn.relative_position_bias_table.shape == (81, 4)
    assert model.layers[3].blocks[1].drop_path.drop_prob == pytest.approx(0.2)
    assert all(stage.recompute for stage in model.layers)
    with pytest.raises(ValueError, match=r"MODEL\.PIXEL_MEAN has 1 channels"):
        build(cfg, ShapeSpec(channels=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "huge"}, r"MODEL\.SWIN\.VARIANT is 'huge'; known: tiny, small, base, large"),
        ({"window_size": 0}, r"MODEL\.SWIN\.WINDOW_SIZE must be positive, not 0"),
        ({"drop_path_rate": 1.0}, r"MODEL\.SWIN\.DROP_PATH_RATE must be in \[0, 1\), not 1\.0"),
    ],
)
def test_impossible_values_name_their_key(options, message):
    with pytest.raises(ValueError, match=message):
        SwinBackbone(**options)
