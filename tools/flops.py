"""Multiply-adds of a model at inference, by fvcore, which counts operations of a traced run.

As usual for such counts, one multiplication with its addition is one. Products of matrices,
convolutions, attention, norms and interpolation are counted, additions and activations of single
elements are not. What fvcore does not know is counted here, and what remains is reported by name.
A trace holds what the outputs depend on: predictions of earlier layers that lead to no later one,
which are there for training, are not in it.
"""

from collections import Counter
from functools import partial
from math import prod
from typing import Any
from unittest.mock import patch

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn

from mask_transformers.layers import deformable_attention
from mask_transformers.layers.deformable_sampling import sample_levels_by_grid
from mask_transformers.meta_arch.detr import DETR
from mask_transformers.meta_arch.detr_results import masks_of
from mask_transformers.meta_arch.exclusive_masks import ExclusiveMaskTransformer


class Network(nn.Module):
    """What inference computes up to class and mask logits of every query, and nothing more."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised, padded ``images`` (N, 3, H, W) to (N, Q, K+1) and (N, Q, h, w).

        Without the semantic heads of MaX- and kMaX-DeepLab, which are there for training. DETR
        with a mask head computes masks a few at a time, as in its inference.
        """
        model: Any = self.model
        if isinstance(model, ExclusiveMaskTransformer):
            prediction = model.predict(images)
            return prediction.class_logits, prediction.mask_logits
        if isinstance(model, DETR):
            return _detr(model, images)
        outputs = model.raw_outputs(images)
        return outputs["pred_logits"], outputs["pred_masks"]


def _detr(model: DETR, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scene = model.detect(images, [(images.shape[-2], images.shape[-1])] * len(images))
    logits, boxes = scene.predictions[-1]
    if model.mask_head is None:
        return logits, boxes
    every = torch.arange(scene.queries.shape[1])
    masks = [
        masks_of(partial(model.masks, scene, image), {"instance": every})["instance"]
        for image in range(len(images))
    ]
    return logits, torch.stack(masks)


def count_flops(network: nn.Module, images: torch.Tensor) -> tuple[int, Counter[str]]:
    """Multiply-adds of ``network`` on ``images``, and how often which operation is not counted."""
    analysis = FlopCountAnalysis(network.eval(), images)
    analysis.set_op_handle(
        **{
            "aten::scaled_dot_product_attention": _attention,
            "aten::einsum": _einsum,
            "aten::matmul": _matmul,
        }
    )
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    # Deformable attention as on a GPU: a trace cannot look into the sum of rows of the CPU.
    with patch.object(deformable_attention, "sample_levels", sample_levels_by_grid):
        return int(analysis.total()), analysis.unsupported_ops()


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Products of queries with keys, and of weights with values."""
    query, key, value = (get_shape(x) for x in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _matmul(inputs: list[Any], outputs: list[Any]) -> int:
    """The length of the sums for every value; fvcore refuses products with vectors."""
    return prod(get_shape(outputs[0])) * get_shape(inputs[0])[-1]


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    """One for every combination of the indices: fvcore takes another path for some of them."""
    terms = inputs[0].toIValue().replace(" ", "").split("->")[0].split(",")
    shapes = [get_shape(x) for x in inputs[1].node().inputs()]
    return einsum_flops(terms, shapes)


def einsum_flops(terms: list[str], shapes: list[list[int]]) -> int:
    """Multiply-adds of a product of two tensors with the indices ``terms``; one each, no dots."""
    sizes = {i: n for t, s in zip(terms, shapes, strict=True) for i, n in zip(t, s, strict=True)}
    return prod(sizes.values())
