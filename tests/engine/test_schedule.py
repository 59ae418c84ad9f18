import pytest
import torch
from detectron2.config import get_cfg

from mask_transformers import add_mask_transformer_config
from mask_transformers.engine import build_lr_scheduler


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_mask_transformer_config(cfg)
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    cfg.SOLVER.POLY_POWER = 0.9
    cfg.SOLVER.MAX_ITER = 100
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.STEPS = (60, 80)
    return cfg


@pytest.fixture
def optimizer():
    return torch.optim.SGD(
        [
            {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0},
            {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1},
        ]
    )


def rates(optimizer, schedule, steps, seconds_per_step=0.0):
    """Rate of the first group before every step."""
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if seconds_per_step:
            schedule.elapsed_seconds = (step + 1) * seconds_per_step
        schedule.step()
    return found


def test_poly_schedule(cfg, optimizer):
    found = rates(optimizer, build_lr_scheduler(cfg, optimizer), 100)
    assert found == pytest.approx([(1 - i / 100) ** 0.9 for i in range(100)])


def test_groups_keep_their_relative_rates(cfg, optimizer):
    rates(optimizer, build_lr_scheduler(cfg, optimizer), 30)
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert second == pytest.approx(0.1 * first)
    assert first < 1


def test_warm_up_is_linear(cfg, optimizer):
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR = 10, 0.0
    found = rates(optimizer, build_lr_scheduler(cfg, optimizer), 12)
    assert found[:3] == pytest.approx([0, 0.1 * 0.9**0.9, 0.2 * 0.9**0.9])
    assert found[10] == pytest.approx(0.9**0.9)


def test_detectron2_schedules_are_kept(cfg, optimizer):
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    found = rates(optimizer, build_lr_scheduler(cfg, optimizer), 90)
    assert (found[59], found[60], found[85]) == pytest.approx((1, 0.1, 0.01))


@pytest.mark.parametrize("name", ["WarmupPolyLR", "WarmupCosineLR"])
def test_time_budget_anneals_fully_before_the_iterations_end(cfg, optimizer, name):
    cfg.SOLVER.LR_SCHEDULER_NAME, cfg.SOLVER.MAX_MINUTES = name, 1.0
    schedule = build_lr_scheduler(cfg, optimizer)
    found = rates(optimizer, schedule, 20, seconds_per_step=3.0)
    assert found == sorted(found, reverse=True)
    assert found[10] == pytest.approx(0.5 ** (0.9 if name == "WarmupPolyLR" else 1), abs=0.02)
    assert schedule.expired
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-3)


def test_time_budget_keeps_steps_at_their_share(cfg, optimizer):
    cfg.SOLVER.LR_SCHEDULER_NAME, cfg.SOLVER.MAX_MINUTES = "WarmupMultiStepLR", 1.0
    found = rates(optimizer, build_lr_scheduler(cfg, optimizer), 10, seconds_per_step=6.0)
    assert (found[5], found[7], found[9]) == pytest.approx((1, 0.1, 0.01))


def test_iterations_count_where_they_are_ahead_of_the_time(cfg, optimizer):
    cfg.SOLVER.MAX_MINUTES = 1000.0
    found = rates(optimizer, build_lr_scheduler(cfg, optimizer), 100, seconds_per_step=0.01)
    assert found[50] == pytest.approx(0.5**0.9)


def test_time_budget_warms_up_by_iterations(cfg, optimizer):
    cfg.SOLVER.MAX_MINUTES, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR = 1.0, 4, 0.0
    found = rates(optimizer, build_lr_scheduler(cfg, optimizer), 6, seconds_per_step=0.6)
    expected = [0.25 * i * (1 - max(0.01 * i, i / 100)) ** 0.9 for i in range(4)]
    assert found[:4] == pytest.approx(expected)
    assert found[4] > found[3]


def test_saved_state_goes_on_with_the_clock(cfg, optimizer):
    cfg.SOLVER.MAX_MINUTES = 1.0
    schedule = build_lr_scheduler(cfg, optimizer)
    rates(optimizer, schedule, 5, seconds_per_step=6.0)
    resumed = build_lr_scheduler(cfg, optimizer)
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.elapsed_seconds == 30
    assert resumed.get_lr() == pytest.approx(schedule.get_lr())


def test_unknown_names_are_refused_with_their_key(cfg, optimizer):
    cfg.SOLVER.LR_SCHEDULER_NAME = "Cosine"
    with pytest.raises(ValueError, match=r"SOLVER.LR_SCHEDULER_NAME is 'Cosine'.*WarmupPolyLR"):
        build_lr_scheduler(cfg, optimizer)
    cfg.SOLVER.LR_SCHEDULER_NAME, cfg.SOLVER.MAX_MINUTES = "WarmupPolyLR", 1.0
    cfg.SOLVER.WARMUP_METHOD = "slow"
    with pytest.raises(ValueError, match=r"SOLVER.WARMUP_METHOD is 'slow'"):
        build_lr_scheduler(cfg, optimizer)
