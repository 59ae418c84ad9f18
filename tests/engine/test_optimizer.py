import pytest
import torch
from detectron2.config import get_cfg
from torch import nn

from mask_transformers import add_mask_transformer_config
from mask_transformers.engine import build_optimizer


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.backbone.relative_position_bias_table = nn.Parameter(torch.ones(5))
        self.head = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GroupNorm(2, 4))
        self.queries = nn.Embedding(3, 4)
        self.level_embed = nn.Parameter(torch.ones(3, 4))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.shared = self.head[0]


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    cfg.SOLVER.WEIGHT_DECAY = 0.05
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    return cfg


def settings(optimizer):
    return {
        id(parameter): (round(group["lr"], 6), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_rates_and_decays_by_kind_of_layer(cfg):
    model = Parts()
    found = settings(build_optimizer(cfg, model))
    assert found[id(model.backbone[0].weight)] == (0.001, 0.05)
    assert found[id(model.backbone[1].weight)] == (0.001, 0.0)
    assert found[id(model.backbone.relative_position_bias_table)] == (0.001, 0.0)
    assert found[id(model.head[0].bias)] == (0.01, 0.05)
    assert found[id(model.head[1].weight)] == found[id(model.head[2].bias)] == (0.01, 0.0)
    assert found[id(model.queries.weight)] == (0.01, 0.0)
    assert found[id(model.level_embed)] == (0.01, 0.05)
    assert id(model.frozen) not in found


def test_few_groups_and_every_parameter_once(cfg):
    model = Parts()
    groups = build_optimizer(cfg, model).param_groups
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(groups) == 4
    assert sorted(members) == sorted({id(p) for p in model.parameters() if p.requires_grad})


def test_embedding_and_bias_keys_mean_what_they_say(cfg):
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.3
    cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.2
    cfg.SOLVER.BIAS_LR_FACTOR = 2.0
    model = Parts()
    found = settings(build_optimizer(cfg, model))
    assert found[id(model.queries.weight)] == (0.01, 0.3)
    assert found[id(model.head[0].bias)] == (0.02, 0.2)


def step_with_gradients(cfg, value, scaler=None):
    """The sum of all steps of plain SGD at rate 1, which is minus the (clipped) gradient."""
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.MOMENTUM, cfg.SOLVER.NESTEROV = "SGD", 0.0, False
    cfg.SOLVER.BASE_LR = cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 3)})
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = build_optimizer(cfg, model)
    for p in model.parameters():
        p.grad = torch.full_like(p, value)
    optimizer.step()
    return [b - p.detach() for b, p in zip(before, model.parameters(), strict=True)]


def test_full_model_clipping_is_one_norm_over_all_parameters(cfg):
    steps = torch.cat([step.flatten() for step in step_with_gradients(cfg, 10.0)])
    assert steps.norm() == pytest.approx(0.5, rel=1e-4)
    assert torch.allclose(steps, steps[0].expand_as(steps))  # the direction is kept


def test_small_gradients_are_not_touched(cfg):
    steps = torch.cat([step.flatten() for step in step_with_gradients(cfg, 0.01)])
    assert torch.allclose(steps, torch.tensor(0.01))


def test_other_types_of_clipping_are_per_parameter(cfg):
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    for step in step_with_gradients(cfg, 10.0):
        assert step.norm() == pytest.approx(0.5, rel=1e-4)


def test_gradient_scaler_unscales_before_clipping(cfg):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.MOMENTUM = "SGD", 0.0
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY = 1.0, 0.0
    model = nn.Linear(2, 2, bias=False)
    optimizer = build_optimizer(cfg, model)
    # The implementation for GPUs: it leaves unscaling to the scaler.
    optimizer._step_supports_amp_scaling = False
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = model.weight.detach().clone()
    loss = (model.weight * 0.1).sum()  # gradient 0.1 each, of norm 0.2: below the limit
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert torch.allclose(before - model.weight.detach(), torch.tensor(0.1), atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value"), [("OPTIMIZER", "Adagrad"), ("CLIP_GRADIENTS.CLIP_TYPE", "full")]
)
def test_unknown_names_are_refused_with_their_key(cfg, key, value):
    cfg.merge_from_list([f"SOLVER.{key}", value])
    with pytest.raises(ValueError, match=f"SOLVER.{key} is '{value}'"):
        build_optimizer(cfg, Parts())
