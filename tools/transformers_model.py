"""The same Mask2Former in the library transformers, with the weights of one of our models."""

import logging
import re

import torch
from torch import nn

# Our names to those of transformers: every rule is applied, in this order.
RULES = [
    (r"backbone\.stem\.conv1\.", "model.pixel_level_module.encoder.embedder.embedder.conv1."),
    (
        r"backbone\.res(\d)\.(\d+)\.",
        lambda m: (
            f"model.pixel_level_module.encoder.encoder.stages.{int(m[1]) - 2}.layers.{m[2]}."
        ),
    ),
    (r"\.encoder\.(.*)\.norm\.", r".encoder.\1.normalization."),
    (r"\.encoder\.(.*)\.(conv\d|shortcut)\.weight", r".encoder.\1.\2.convolution.weight"),
    (r"\.embedder\.conv1\.", ".embedder."),
    (r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}."),
    (r"^pixel_decoder\.layers\.", "model.pixel_level_module.decoder.encoder.layers."),
    (r"^pixel_decoder\.", "model.pixel_level_module.decoder."),
    (r"\.input_proj\.", ".input_projections."),
    (r"\.mask_features\.", ".mask_projection."),
    (r"\.lateral\.norm\.", ".adapter_1.1."),
    (r"\.lateral\.", ".adapter_1.0."),
    (r"\.output\.norm\.", ".layer_1.1."),
    (r"\.output\.", ".layer_1.0."),
    (r"\.linear(\d)\.", r".fc\1."),
    (r"\.norm1\.", ".self_attn_layer_norm."),
    (r"\.norm2\.", ".final_layer_norm."),
    (r"^transformer_decoder\.class_embed\.", "class_predictor."),
    (r"^transformer_decoder\.query_feat\.", "model.transformer_module.queries_features."),
    (r"^transformer_decoder\.query_embed\.", "model.transformer_module.queries_embedder."),
    (r"^transformer_decoder\.level_embed\.", "model.transformer_module.level_embed."),
    (r"^transformer_decoder\.", "model.transformer_module.decoder."),
    (r"\.decoder_norm\.", ".layernorm."),
    (r"\.(cross|self)_norm\.", r".\1_attn_layer_norm."),
    (r"\.ffn_norm\.", ".final_layer_norm."),
    (r"\.mask_embed\.layers\.(\d)\.", r".mask_predictor.mask_embedder.\1.0."),
]


def convert_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our state dict with the names of transformers, packed self-attention taken apart."""
    converted = {}
    for name, tensor in state.items():
        for pattern, replacement in RULES:
            name = re.sub(pattern, replacement, name)
        if ".self_attn.in_proj_" in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                converted[name.replace("in_proj_", f"{letter}_proj.")] = part
        else:
            converted[name] = tensor
    return converted


def build_transformers_model(state: dict[str, torch.Tensor]) -> nn.Module:
    """Mask2Former with ResNet-50 for COCO panoptic; ValueError where ``state`` does not fit it."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    logging.getLogger("transformers").setLevel(logging.ERROR)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ResNetConfig(out_features=stages)
    config = Mask2FormerConfig(backbone_config=backbone, num_labels=133)
    model = Mask2FormerForUniversalSegmentation(config)
    missing, unexpected = model.load_state_dict(convert_state(state), strict=False)
    missing = [name for name in missing if not name.endswith(("batches_tracked", "empty_weight"))]
    if missing or unexpected:
        raise ValueError(f"names without a counterpart: {missing} and {unexpected}")
    return model.eval()


def train_with_frozen_norms(model: nn.Module) -> nn.Module:
    """Training mode, but for the batch norms, which our ResNet keeps frozen too."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    return model
