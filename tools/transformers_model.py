"""The same model in the library transformers, with the weights of one of ours."""

import logging
from typing import Any

from torch import nn

from mask_transformers.checkpoint import to_transformers


def build_transformers_model(ours: nn.Module) -> nn.Module:
    """A Mask2Former, or MaskFormer with the plain pyramid, of the published sizes with ResNet-50.

    ValueError or RuntimeError names the tensors where ``ours`` is another model.
    """
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    state = to_transformers(ours)
    sizes: dict[str, Any] = {
        "backbone_config": transformers.ResNetConfig(
            out_features=["stage1", "stage2", "stage3", "stage4"]
        ),
        "num_labels": len(state["class_predictor.bias"]) - 1,
    }
    if type(ours).__name__ == "MaskFormer":
        config = transformers.MaskFormerConfig(**sizes)
        model = transformers.MaskFormerForInstanceSegmentation(config)
    else:
        config = transformers.Mask2FormerConfig(**sizes)
        model = transformers.Mask2FormerForUniversalSegmentation(config)
    model.load_state_dict(state)
    return model.eval()


def train_with_frozen_norms(model: nn.Module) -> nn.Module:
    """Training mode, but for the batch norms, which our ResNet keeps frozen too."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    return model
