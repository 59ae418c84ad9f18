import pytest
import torch
import torch.nn.functional as F

from mask_transformers.layers.pixel_grid import full_grid, padded_grid
from mask_transformers.layers.position_encoding import sine_position_encoding
from mask_transformers.layers.transformer_layers import TransformerEncoder
from mask_transformers.transformer_decoders.standard import QueryDecoder

PADDED = (61, 90)
SIZES = [(61, 90), (40, 90), (33, 17)]


def test_without_padding_there_is_no_mask():
    grid = padded_grid(torch.zeros(2, 3, 4, 6), 8, [PADDED, PADDED], PADDED)
    assert grid.inside is None
    expected = sine_position_encoding(4, 6, 8).flatten(2).transpose(1, 2)
    assert torch.equal(grid.position, expected)


def test_pixels_outside_are_those_of_the_resized_mask():
    grid = padded_grid(torch.zeros(3, 3, 4, 6), 8, SIZES, PADDED)
    for (height, width), inside in zip(SIZES, grid.inside, strict=True):
        mask = torch.zeros(1, 1, *PADDED)
        mask[..., :height, :width] = 1
        assert torch.equal(F.interpolate(mask, size=(4, 6)).flatten().bool(), inside[0])


@pytest.mark.parametrize("image", range(3))
def test_positions_and_attention_see_the_image_alone(image):
    encoder = TransformerEncoder(8, 2, 2, 16).eval()
    decoder = QueryDecoder(8, queries=5, dim=8, layers=2, heads=2, ffn_dim=16).eval()
    level = torch.randn(3, 8, 4, 6)
    padded = padded_grid(level, 8, SIZES, PADDED)
    inside = torch.ones(4, 6, dtype=torch.bool) if padded.inside is None else padded.inside[image]
    height = int(inside.view(4, 6).any(1).sum())
    width = int(inside.view(4, 6).any(0).sum())
    alone = level[image, None, :, :height, :width]
    with torch.no_grad():
        memory = encoder(level, padded)
        memory_alone = encoder(alone, full_grid(alone, 8))
        queries = decoder(memory, padded)[-1][image]
        queries_alone = decoder(memory_alone)[-1][0]
    torch.testing.assert_close(memory[image, :, :height, :width], memory_alone[0])
    torch.testing.assert_close(queries, queries_alone)
