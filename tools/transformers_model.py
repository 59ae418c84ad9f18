"""The same model in the library transformers, with the weights of one of ours."""

import logging
from typing import Any

from torch import nn

from mask_transformers.checkpoint import to_transformers


def build_transformers_model(ours: nn.Module) -> nn.Module:
    """A DETR, Mask2Former, or MaskFormer with the plain pyramid, as published with ResNet-50.

    ValueError or RuntimeError names the tensors where ``ours`` is another model.
    """
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    state, system = to_transformers(ours), type(ours).__name__
    stages = ["stage4"] if system == "DETR" else ["stage1", "stage2", "stage3", "stage4"]
    classes = "class_labels_classifier" if system == "DETR" else "class_predictor"
    sizes: dict[str, Any] = {
        "backbone_config": transformers.ResNetConfig(out_features=stages),
        "num_labels": len(state[f"{classes}.bias"]) - 1,
    }
    if system == "DETR":
        # Its ResNet has the frozen norms and the stride in the 3×3 convolution of ours.
        config = transformers.DetrConfig(use_timm_backbone=False, **sizes)
        model = transformers.DetrForObjectDetection(config)
    elif system == "MaskFormer":
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
