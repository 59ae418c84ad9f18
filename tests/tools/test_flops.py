import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mask_transformers.layers.attention import MultiHeadAttention

SYSTEMS = ["detr", "max_deeplab", "maskformer", "mask2former", "kmax"]


@pytest.fixture
def flops(load_benchmark):
    return load_benchmark("flops")


def test_a_convolution_counts_its_products(flops):
    total, uncounted = flops.count_flops(nn.Conv2d(3, 5, 3, padding=1), torch.zeros(1, 3, 4, 6))
    assert total == 4 * 6 * 3 * 5 * 9
    assert not uncounted


def test_fused_attention_counts_both_products(flops):
    class SelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = MultiHeadAttention(8, 2)

        def forward(self, x):
            return self.attention(x, x, x)

    total, _ = flops.count_flops(SelfAttention(), torch.zeros(1, 10, 8))
    projections, products = 4 * 10 * 8 * 8, 2 * 10 * 10 * 8
    assert total == projections + products


def test_einsum_counts_every_combination_of_indices(flops):
    assert flops.einsum_flops(["bhld", "lmd"], [[2, 3, 4, 5], [4, 6, 5]]) == 2 * 3 * 4 * 5 * 6


def test_products_with_vectors(flops):
    class Product(nn.Module):
        def forward(self, x):
            return x @ torch.ones(4)

    assert flops.count_flops(Product(), torch.zeros(3, 4))[0] == 12


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_whole_network_is_counted(flops, tiny_model, system):
    """PyTorch's own counter sees what runs, and no norms; nor does it know attention on a CPU."""
    model = tiny_model(f"{system}_small_shapes_panoptic").eval().requires_grad_(False)
    network = flops.Network(model)
    images = torch.randn(1, 3, *model.padded_image_size((64, 64)))
    total, uncounted = flops.count_flops(network, images)
    with FlopCounterMode(display=False) as counter:
        logits, masks = network(images)
    assert total == pytest.approx(counter.get_total_flops() / 2, rel=0.15)
    assert logits.shape[:2] == masks.shape[:2]
    products = ("conv", "mm", "matmul", "linear", "einsum", "attention", "grid_sampler")
    assert not [name for name in uncounted if name.endswith(products)]


def test_semantic_heads_are_not_run(flops, tiny_model, monkeypatch):
    model = tiny_model("max_deeplab_small_shapes_panoptic").eval()
    monkeypatch.setattr(model, "semantic_head", None)
    flops.Network(model)(torch.zeros(1, 3, 33, 33))


def test_a_detector_without_masks_gives_boxes(flops, tiny_model):
    model = tiny_model("detr_small_custom_box").eval()
    logits, boxes = flops.Network(model)(torch.randn(1, 3, 64, 64))
    assert boxes.shape == (*logits.shape[:2], 4)
