import pytest
import torch
from torch import nn

from mask_transformers.layers.position_encoding import token_positions
from mask_transformers.structures import PixelFeatures
from mask_transformers.transformer_decoders.standard import QueryDecoder, StandardDecoder


def _decoder(in_channels=16, layers=3):
    decoder = QueryDecoder(in_channels, queries=6, dim=16, layers=layers, heads=2, ffn_dim=20)
    return StandardDecoder(decoder, num_classes=5, dim=16, mask_dim=8)


def _pixels(channels=16, batch=2):
    return PixelFeatures(torch.randn(batch, 8, 16, 24), [torch.randn(batch, channels, 3, 4)])


@pytest.mark.parametrize("channels", [16, 10])
def test_a_prediction_of_every_layer(channels):
    predictions = _decoder(channels)(_pixels(channels))
    assert len(predictions) == 3
    for logits, embedding in predictions:
        assert logits.shape == (2, 6, 6)
        assert embedding.shape == (2, 6, 8)


def test_layers_by_their_formula():
    decoder = _decoder(layers=2).eval()
    pixels, core = _pixels(), decoder.decoder
    memory = pixels.levels[0].flatten(2).transpose(1, 2)
    position = core.query_embed.weight.expand(2, -1, -1)
    query = torch.zeros(2, 6, 16)
    key = memory + token_positions(3, 4, 16, "cpu")
    with torch.no_grad():
        for layer, (logits, embedding) in zip(core.layers, decoder(pixels), strict=True):
            attention = [nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(2)]
            attention[0].load_state_dict(layer.self_attn.state_dict())
            attention[1].load_state_dict(layer.cross_attn.state_dict())
            placed = query + position
            query = layer.norm1(query + attention[0](placed, placed, query)[0])
            query = layer.norm2(query + attention[1](query + position, key, memory)[0])
            query = layer.norm3(query + layer.linear2(layer.linear1(query).relu()))
            torch.testing.assert_close(logits, decoder.class_embed(core.norm(query)))
            torch.testing.assert_close(embedding, decoder.mask_embed(core.norm(query)))


def test_dropout_draws_the_same_units_when_the_hidden_layer_is_recomputed():
    """The gradient of a linear loss is then that of the function that was evaluated."""
    decoder = QueryDecoder(16, queries=4, dim=16, layers=1, heads=2, ffn_dim=20).double()
    level = torch.randn(1, 16, 2, 2, dtype=torch.double)
    weight = decoder.layers[0].linear2.weight

    def value():
        torch.manual_seed(5)
        return decoder(level)[0].pow(3).sum()

    value().backward()
    slope, step = weight.grad[3, 7].item(), 1e-6
    with torch.no_grad():
        weight[3, 7] += step
        above = value()
        weight[3, 7] -= 2 * step
        below = value()
    assert ((above - below) / (2 * step)).item() == pytest.approx(slope, rel=1e-5)


def test_dropout_is_for_training_only():
    decoder, pixels = _decoder(), _pixels()
    with torch.no_grad():
        assert not torch.equal(decoder(pixels)[-1][0], decoder(pixels)[-1][0])
        decoder.eval()
        assert torch.equal(decoder(pixels)[-1][0], decoder(pixels)[-1][0])
