"""What a trained model looks at in an image, layer by layer, as rows of pictures.

``SYSTEMS`` has one function for each meta-architecture. A system whose layers have dense masks of
all queries that exclude each other is drawn by ``clusters``.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.engine import DefaultPredictor
from detectron2.structures import Instances
from PIL import Image
from torch import nn

from ..inference.detection import best_classes, contiguous_probabilities, detected_instances
from ..layers.conv_norm import corners_align
from ..meta_arch.base import resize_to_output
from ..visualization.attention import Layer, Size, cluster_row, place, query_row
from ..visualization.overlay import READABLE_SIDE
from ..visualization.side_by_side import Panel

Rows = list[list[Panel]]


@dataclass
class View:
    """An image, and what its model is given of it."""

    model: Any
    image: np.ndarray  # (H, W, 3) RGB, as large as it is shown
    record: dict
    images: torch.Tensor  # (1, 3, H', W'), normalised and padded
    metadata: Any

    @property
    def sizes(self) -> tuple[Size, Size, Size]:
        """(Height, width) of the padded image, of the image in it, and of the one that is shown."""
        height, width = self.record["image"].shape[-2:]
        shown = self.image.shape[0], self.image.shape[1]
        return (self.images.shape[-2], self.images.shape[-1]), (height, width), shown

    def place(self, maps: torch.Tensor, aligned: bool = False) -> np.ndarray:
        """Maps (..., h, w) of the padded image, on the one that is shown: (..., H, W)."""
        return place(maps.cpu().numpy(), *self.sizes, aligned)

    def stride(self, width: int) -> str:
        """The stride of a map of ``width``, a power of two, for a title."""
        return f"stride {2 ** round(math.log2(self.sizes[0][1] / width))}"


@torch.no_grad()
def attention_rows(
    predictor: DefaultPredictor, bgr: np.ndarray, metadata: Any = None, queries: int = 4
) -> Rows:
    """Rows of pictures of a ``bgr`` image: one of all clusters, or one for each of the ``queries``.

    These are the queries that are surest of their class. ValueError: ``rows_of_system``.
    """
    draw = rows_of_system(type(predictor.model).__name__)
    pixels = bgr[:, :, ::-1] if predictor.input_format == "RGB" else bgr
    resized = predictor.aug.get_transform(pixels).apply_image(pixels)
    shown = Image.fromarray(np.ascontiguousarray(bgr[:, :, ::-1]))
    shown.thumbnail((READABLE_SIDE, READABLE_SIDE))  # no panel shows more
    image = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
    record = {"image": image, "height": shown.height, "width": shown.width}
    images = predictor.model.prepare_images([record]).tensor
    return draw(View(predictor.model, np.array(shown), record, images, metadata), queries)


def clusters(view: View, queries: int) -> Rows:
    """One row: every pixel with the query whose mask it belongs to; ``queries`` has no meaning.

    kMaX-DeepLab has masks in every layer, MaX-DeepLab at the end alone.

    ValueError: the config does not ask for the panoptic result, by which clusters are coloured.
    """
    outputs = view.model.raw_outputs(view.images)
    results = view.model([view.record])[0]
    if "panoptic_seg" not in results:
        raise ValueError('MODEL.MASK_TRANSFORMER.TEST.TASKS must hold "panoptic" to draw clusters')
    ids, segments = results["panoptic_seg"]
    masks = [prediction["pred_masks"][0] for prediction in (*outputs["aux_outputs"], outputs)]
    names = [f"layer {i}" for i in range(1, len(masks))]
    names.append("last masks" if names else "masks")
    layers = [
        (view.place(mask.argmax(0), corners_align(mask)), f"{name}, {view.stride(mask.shape[-1])}")
        for name, mask in zip(names, masks, strict=True)
    ]
    classes = outputs["pred_logits"][0, :, :-1].argmax(-1).tolist()
    return [cluster_row(view.image, layers, classes, (ids.cpu().numpy(), segments), view.metadata)]


def masked_attention(view: View, queries: int) -> Rows:
    """Where each query may look; without MASKED, everywhere. Its mask stands last."""
    with recorded_inputs(view.model.transformer_decoder.layers) as inputs:
        outputs = view.model.raw_outputs(view.images)
    scores, labels, index = best_classes(outputs["pred_logits"][0].softmax(-1), queries)
    levels = outputs["pixel_features"].levels
    layers = []
    for i, (_, _, _, value, attend) in enumerate(inputs):
        shape = levels[i % len(levels)].shape[-2:]
        if attend is None:
            attend = value.new_ones(1, len(outputs["pred_logits"][0]), value.shape[1])
        seen = view.place(attend[0, index].unflatten(-1, shape).float())
        layers.append((seen, f"layer {i + 1}, {view.stride(shape[1])}"))
    masks = resize_to_output(outputs["pred_masks"][0, index], *view.sizes) > 0
    found = Instances(view.sizes[2], scores=scores, pred_classes=labels, pred_masks=masks)
    return _query_rows(view, layers, index, found)


def encoder_decoder_attention(view: View, queries: int) -> Rows:
    """What each query looks at (DETR, figure 6): the mean of the heads, scaled to a maximum of 1.

    Its box stands last.
    """
    model, (height, width) = view.model, view.sizes[1]
    attentions = [layer.cross_attn for layer in model.decoder.layers]
    with recorded_inputs([model.decoder, *attentions]) as inputs:
        outputs = model.raw_outputs(view.images[..., :height, :width])
    memory = inputs[0][0]  # (1, C, h, w)
    probabilities = contiguous_probabilities(outputs["pred_logits"][0], model.class_ids)
    scores, labels, index = best_classes(probabilities, queries)
    layers = []
    for i, (attention, (query, key, *_)) in enumerate(zip(attentions, inputs[1:], strict=True)):
        weights = attention.weights(query[:, index], key)[0].unflatten(-1, memory.shape[-2:])
        seen = view.place(weights / weights.amax((1, 2), keepdim=True))
        layers.append((seen, f"layer {i + 1}, {view.stride(memory.shape[-1])}"))
    boxes = outputs["pred_boxes"][0, index]
    found = detected_instances(scores, labels, boxes, view.sizes[2])
    return _query_rows(view, layers, index, found)


def _query_rows(view: View, layers: list[Layer], index: torch.Tensor, found: Instances) -> Rows:
    """``layers``: what the queries ``index`` (n,) see, weights (n, H, W); ``found``: by them."""
    masks = found.pred_masks.cpu().numpy() if found.has("pred_masks") else None
    boxes = found.pred_boxes.tensor.cpu().numpy() if masks is None else None
    columns = (index.tolist(), found.pred_classes.tolist(), found.scores.tolist())
    return [
        query_row(
            view.image,
            [(weights[k], title) for weights, title in layers],
            *of_query,
            view.metadata,
            mask=None if masks is None else masks[k],
            box=None if boxes is None else boxes[k],
        )
        for k, of_query in enumerate(zip(*columns, strict=True))
    ]


@contextmanager
def recorded_inputs(modules: Iterable[nn.Module]) -> Iterator[list[tuple]]:
    """A list that gets the positional arguments of every call of one of the ``modules``."""
    calls: list[tuple] = []
    hooks = [m.register_forward_pre_hook(lambda _, args: calls.append(args)) for m in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


SYSTEMS: dict[str, Callable[[View, int], Rows]] = {
    "DETR": encoder_decoder_attention,
    "KMaXDeepLab": clusters,
    "MaXDeepLab": clusters,
    "Mask2Former": masked_attention,
}


def rows_of_system(name: str) -> Callable[[View, int], Rows]:
    """The function that draws the meta-architecture ``name``; ValueError names the known ones."""
    if name not in SYSTEMS:
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {name!r}, whose attention is not drawn; "
            f"drawn is that of {', '.join(SYSTEMS)}"
        )
    return SYSTEMS[name]
