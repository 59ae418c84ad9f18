import pytest
import torch
import torch.nn.functional as F

from mask_transformers.layers.conv_norm import SyncNorm
from mask_transformers.structures import PixelFeatures
from mask_transformers.transformer_decoders.kmeans import (
    KMeansLayer,
    kmeans_update,
    softmax_update,
)
from mask_transformers.transformer_decoders.kmeans_decoder import KMeansDecoder
from mask_transformers.transformer_decoders.mask_predictor import MaskPredictor

LEVELS = [(8, (3, 4)), (6, (5, 7))]  # width and size, coarse first
MASK_CHANNELS, MASK_SIZE = 3, (9, 13)
NODE = "MODEL.MASK_TRANSFORMER."


def _one_hot(similarity):
    """(N, Q, L), 1 for the best query of each pixel."""
    best = similarity.flatten(2).argmax(1)
    return F.one_hot(best, similarity.shape[1]).transpose(1, 2)


def _plain_update(similarity, values):
    weights = _one_hot(similarity).to(values.dtype)
    return torch.einsum("nql,ndl->ndq", weights, values.flatten(2))


def _maps(images=2, queries=5, channels=3, size=(4, 6)):
    similarity = torch.randn(images, queries, *size, dtype=torch.float64)
    return similarity, torch.randn(images, channels, *size, dtype=torch.float64)


@pytest.mark.parametrize("size", [(4, 6), (1, 1), (7, 1)])
def test_an_update_is_the_product_with_one_hot_assignments(size):
    similarity, values = _maps(size=size)
    update = kmeans_update(similarity, values)
    assert update.dtype == torch.float64
    torch.testing.assert_close(update, _plain_update(similarity, values))


def test_pixels_by_hand():
    similarity = torch.tensor([[[[3.0, 1.0, 0.0]], [[2.0, 4.0, -1.0]], [[1.0, 1.0, -2.0]]]])
    values = torch.tensor([[[[10.0, 20.0, 40.0]]]])
    assert kmeans_update(similarity, values).tolist() == [[[50.0, 20.0, 0.0]]]


def test_the_first_of_equal_queries_has_the_pixel_and_others_have_none():
    _, values = _maps(queries=4)
    update = kmeans_update(torch.zeros(2, 4, 4, 6, dtype=torch.float64), values)
    torch.testing.assert_close(update[:, :, 0], values.sum((2, 3)))
    assert not update[:, :, 1:].any()


def test_images_do_not_mix():
    similarity, values = _maps(images=3)
    alone = [kmeans_update(similarity[i : i + 1], values[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(kmeans_update(similarity, values), torch.cat(alone))


def test_memory_layout_does_not_matter():
    similarity, values = _maps()
    other = [x.contiguous(memory_format=torch.channels_last) for x in (similarity, values)]
    torch.testing.assert_close(kmeans_update(*other), kmeans_update(similarity, values))


def test_gradients_reach_the_values_alone():
    similarity, values = (x.requires_grad_() for x in _maps(size=(2, 3)))
    assert torch.autograd.gradcheck(lambda v: kmeans_update(similarity.detach(), v), values)
    probe = torch.randn(2, 3, 5, dtype=torch.float64)
    total = (kmeans_update(similarity, values) * probe).sum()
    found = torch.autograd.grad(total, [similarity, values], allow_unused=True)
    assert found[0] is None
    [expected] = torch.autograd.grad((_plain_update(similarity, values) * probe).sum(), values)
    torch.testing.assert_close(found[1], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_half_precision_are_neither_rounded_nor_infinite(dtype):
    """One cluster of 10,000 pixels: 80,000 is beyond float16, and bfloat16 would stop at 2,048."""
    values = torch.full((1, 1, 100, 100), 8.0, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        update = kmeans_update(torch.zeros(1, 2, 100, 100, dtype=dtype), values)
    assert update.tolist() == [[[80_000.0, 0.0]]]
    update[0, 0, 0].backward()
    assert values.grad.dtype == dtype
    assert (values.grad == 1).all()


def test_softmax_update_is_cross_attention():
    similarity, values = (x.requires_grad_() for x in _maps())
    update = softmax_update(similarity, values)
    expected = F.scaled_dot_product_attention(
        torch.eye(5, dtype=torch.float64).expand(2, -1, -1),
        similarity.flatten(2).transpose(1, 2),
        values.flatten(2).transpose(1, 2),
        scale=1.0,
    )
    torch.testing.assert_close(update, expected.transpose(1, 2))
    update.sum().backward()
    assert similarity.grad is not None


def _randomise(module):
    """Norms that are far from the identity: branches that end in a weight of zero too."""
    for part in module.modules():
        if isinstance(part, SyncNorm):
            torch.nn.init.uniform_(part.weight, 0.5, 2)
            torch.nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module


def _layer(**arguments):
    predictor = MaskPredictor(8, 8, 4, mask_dim=5)
    return KMeansLayer(6, 8, predictor, heads=2, ffn_dim=10, **arguments)


def test_a_new_layer_leaves_centres_to_their_activations():
    """Branches start from nothing, so that training does."""
    layer = _layer()
    centers = torch.randn(2, 8, 7)
    updated, _ = layer(centers, torch.randn(2, 6, 4, 5))
    torch.testing.assert_close(updated, F.gelu(F.gelu(centers)))


def _plain_layer(layer, centers, pixels, update):
    """Predict, update, self-attention of the centres as they came, feed-forward network."""
    space, query = layer.pixel_in(F.gelu(pixels)), layer.query_in(centers)
    prediction = layer.predictor(query, query, space)
    moved = update(prediction.mask_logits, layer.pixel_value(space))
    centers = centers + layer.kmeans_out(layer.kmeans_norm(moved))
    q, k, v = layer.query_qkv(query).split([4, 4, 8], 1)
    centers = F.gelu(centers + layer.query_out(layer.self_attention(q, k, v)))
    return F.gelu(centers + layer.ffn_out(layer.ffn_in(centers)))


@pytest.mark.parametrize("update", [_plain_update, softmax_update])
def test_order_of_a_layer(update):
    kind = kmeans_update if update is _plain_update else update
    layer, centers, pixels = (
        _randomise(_layer(cross_attention=kind)).eval(),
        torch.randn(2, 8, 7),
        None,
    )
    pixels = torch.randn(2, 6, 4, 5)
    updated, prediction = layer(centers, pixels)
    torch.testing.assert_close(updated, _plain_layer(layer, centers, pixels, update))
    assert prediction.class_logits.shape == (2, 7, 5)
    assert prediction.mask_logits.shape == (2, 7, 4, 5)
    assert prediction.pixel_features.shape == (2, 5, 4, 5)


def test_self_attention_does_not_see_the_update():
    layer, pixels = _randomise(_layer()).eval(), torch.randn(2, 6, 4, 5)
    seen = []
    layer.self_attention.register_forward_hook(lambda module, inputs, output: seen.append(output))
    centers = torch.randn(2, 8, 7)
    layer(centers, pixels)
    layer.pixel_value.norm.bias.data += 1
    layer(centers, pixels)
    torch.testing.assert_close(seen[0], seen[1])


def test_the_centres_get_no_gradient_by_their_assignment():
    """That of softmax cross-attention reaches the mask embedding, that of k-means does not."""
    for kind, reached in ((kmeans_update, False), (softmax_update, True)):
        layer = _randomise(_layer(cross_attention=kind)).eval()
        updated, _ = layer(torch.randn(2, 8, 7), torch.randn(2, 6, 4, 5))
        updated.sum().backward()
        assert (layer.predictor.mask_embed.conv.weight.grad is not None) == reached
        assert layer.pixel_value.conv.weight.grad.abs().max() > 0


def test_drop_path_leaves_out_the_branches_of_some_images():
    layer = _randomise(_layer(drop_path=0.5)).train()
    centers, pixels = torch.randn(1, 8, 7).expand(64, -1, -1), torch.randn(1, 6, 4, 5)
    with torch.no_grad():
        updated, _ = layer(centers, pixels.expand(64, -1, -1, -1))
    kinds = len({tuple(image.flatten().mul(1e3).round().tolist()) for image in updated})
    assert kinds == 2**3  # each of the three branches, on its own


def _decoder(**arguments):
    numbers = {"num_classes": 4, "queries": 7, "dim": 8, "mask_channels": MASK_CHANNELS}
    numbers |= {"mask_dim": 5, "layers": 4, "heads": 2, "ffn_dim": 10}
    return KMeansDecoder([channels for channels, _ in LEVELS], **{**numbers, **arguments})


def _pixels(images=2):
    levels = [torch.randn(images, channels, *size) for channels, size in LEVELS]
    return PixelFeatures(torch.randn(images, MASK_CHANNELS, *MASK_SIZE), levels)


def test_a_prediction_of_every_layer_and_one_of_the_mask_features():
    predictions = _decoder()(_pixels())
    sizes = [(3, 4), (3, 4), (5, 7), (5, 7), MASK_SIZE]
    assert [tuple(p.mask_logits.shape) for p in predictions] == [(2, 7, *s) for s in sizes]
    assert [tuple(p.pixel_features.shape) for p in predictions] == [(2, 5, *s) for s in sizes]
    assert all(p.class_logits.shape == (2, 7, 5) for p in predictions)


def test_layers_follow_one_another():
    decoder, pixels = _randomise(_decoder()).eval(), _pixels()
    centers = decoder.centers.weight.expand(2, -1, -1)
    levels = [pixels.levels[i] for i in (0, 0, 1, 1)]
    found = decoder(pixels)
    for layer, level, prediction in zip(decoder.layers, levels, found, strict=False):
        centers, expected = layer(centers, level)
        torch.testing.assert_close(prediction.mask_logits, expected.mask_logits)
    queries = (decoder.class_projection(centers), decoder.mask_projection(centers))
    last = decoder.predictor(*queries, pixels.mask_features)
    torch.testing.assert_close(found[-1].class_logits, last.class_logits)
    torch.testing.assert_close(found[-1].mask_logits, last.mask_logits)


def test_batched_equals_single():
    decoder, pixels = _randomise(_decoder()).eval(), _pixels(3)
    batched = decoder(pixels)
    for i in range(3):
        for one, all_ in zip(decoder(pixels.image(i)), batched, strict=True):
            torch.testing.assert_close(
                one.mask_logits[0], all_.mask_logits[i], rtol=1e-4, atol=1e-4
            )
            torch.testing.assert_close(
                one.class_logits[0], all_.class_logits[i], rtol=1e-4, atol=1e-4
            )


def test_every_parameter_learns():
    decoder = _randomise(_decoder())
    predictions = decoder(_pixels())
    sum(
        p.class_logits.square().sum() + p.mask_logits.square().sum() for p in predictions
    ).backward()
    missed = [n for n, p in decoder.named_parameters() if p.grad is None or not p.grad.any()]
    # A shift of all similarities of a head changes no softmax.
    assert [n for n in missed if not n.endswith("similarity_norm.bias")] == []


def test_autocast_keeps_norms_of_sums_in_full_precision():
    decoder, pixels = _randomise(_decoder()).eval(), _pixels()
    seen = []
    decoder.layers[0].kmeans_norm.register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0].dtype, output.dtype))
    )
    with torch.autocast("cpu", torch.bfloat16):
        predictions = decoder(pixels)
    assert seen == [(torch.float32, torch.float32)]
    assert all(p.mask_logits.isfinite().all() for p in predictions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 3}, r"TRANSFORMER_DECODER\.LAYERS 3 cannot be shared by 2 levels"),
        ({"cross_attention": "hard"}, r"CROSS_ATTENTION is 'hard'; known: kmeans, softmax"),
        ({"heads": 3}, r"TRANSFORMER_DECODER\.HEADS 3 must divide half of HIDDEN_DIM 8"),
        ({"heads": 8}, r"HEADS 8 must divide half of HIDDEN_DIM 8"),
    ],
)
def test_impossible_values_name_the_key(arguments, message):
    with pytest.raises(ValueError, match=message):
        _decoder(**arguments)


def test_arguments_come_from_the_config(tiny_config):
    part = NODE + "TRANSFORMER_DECODER."
    keys = {
        part + "LAYERS": 6,
        part + "HEADS": 4,
        part + "FFN_DIM": 24,
        part + "DROP_PATH_RATE": 0.2,
        part + "CROSS_ATTENTION": "softmax",
        NODE + "QUERIES": 9,
        NODE + "HIDDEN_DIM": 32,
        NODE + "MASK_DIM": 12,
    }
    decoder = KMeansDecoder(tiny_config("kmax_R50_coco_panoptic", keys), [64, 32, 16])
    layer = decoder.layers[5]
    assert (len(decoder.layers), decoder.per_level) == (6, 2)
    assert decoder.centers.weight.shape == (32, 9)
    assert layer.pixel_in.conv.in_channels == 16
    assert layer.self_attention.heads == 4
    assert layer.ffn_in.conv.out_channels == 24
    assert layer.drop_path.drop_prob == 0.2
    assert layer.cross_attention is softmax_update
    assert decoder.predictor.depthwise.conv.in_channels == 8
    assert decoder.predictor.mask_embed.conv.out_channels == 12
    assert decoder.predictor.class_embed.out_channels == 134
