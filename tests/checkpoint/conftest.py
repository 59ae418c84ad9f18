"""Miniatures of the library `transformers`, where it is installed, and files of TensorFlow."""

import pytest

from mask_transformers.checkpoint import tensorflow

STAGES = ["stage1", "stage2", "stage3", "stage4"]


@pytest.fixture(scope="session")
def their_model():
    """Function from a config to the same model in `transformers`, with random weights.

    ``timm``: with a ResNet of timm, where DETR can have one.
    """
    transformers = pytest.importorskip("transformers")

    def make(cfg, timm=False):
        node = cfg.MODEL.MASK_TRANSFORMER
        if cfg.MODEL.META_ARCHITECTURE == "DETR":
            return _detr(transformers, cfg, timm)
        sizes = {
            "backbone_config": _backbone(transformers, cfg),
            "num_labels": node.NUM_CLASSES,
            "mask_feature_size": node.MASK_DIM,
        }
        if cfg.MODEL.META_ARCHITECTURE == "MaskFormer":
            config = transformers.MaskFormerConfig(**sizes, **_maskformer(node))
            return transformers.MaskFormerForInstanceSegmentation(config).eval()
        config = transformers.Mask2FormerConfig(**sizes, **_mask2former(node))
        return transformers.Mask2FormerForUniversalSegmentation(config).eval()

    return make


def _backbone(transformers, cfg):
    if cfg.MODEL.BACKBONE.NAME == "build_swin_backbone":
        from mask_transformers.backbones.swin import VARIANTS

        variant = VARIANTS[cfg.MODEL.SWIN.VARIANT]
        return transformers.SwinConfig(
            embed_dim=variant.width,
            depths=list(variant.depths),
            num_heads=list(variant.heads),
            window_size=cfg.MODEL.SWIN.WINDOW_SIZE,
            out_features=STAGES,
        )
    return transformers.ResNetConfig(
        embedding_size=cfg.MODEL.RESNETS.STEM_OUT_CHANNELS,
        hidden_sizes=[cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 2**i for i in range(4)],
        out_features=STAGES,
    )


def _maskformer(node):
    decoder = node.TRANSFORMER_DECODER
    detr = {
        "model_type": "detr",
        "d_model": node.HIDDEN_DIM,
        "num_queries": node.QUERIES,
        "decoder_layers": decoder.LAYERS,
        "decoder_ffn_dim": decoder.FFN_DIM,
        "decoder_attention_heads": decoder.HEADS,
    }
    return {"fpn_feature_size": node.HIDDEN_DIM, "decoder_config": detr}


def _mask2former(node):
    return {
        "feature_size": node.HIDDEN_DIM,
        "hidden_dim": node.HIDDEN_DIM,
        "num_queries": node.QUERIES,
        "encoder_layers": node.PIXEL_DECODER.LAYERS,
        "encoder_feedforward_dim": node.PIXEL_DECODER.FFN_DIM,
        "decoder_layers": node.TRANSFORMER_DECODER.LAYERS + 1,  # theirs counts the predictions
        "dim_feedforward": node.TRANSFORMER_DECODER.FFN_DIM,
    }


def _detr(transformers, cfg, timm):
    node = cfg.MODEL.MASK_TRANSFORMER
    if timm:
        kind = {"use_timm_backbone": True, "backbone": f"resnet{cfg.MODEL.RESNETS.DEPTH}"}
        kind["dilation"] = cfg.MODEL.RESNETS.RES5_DILATION == 2
    else:
        kind = {"use_timm_backbone": False, "backbone_config": _backbone(transformers, cfg)}
    config = transformers.DetrConfig(
        **kind,
        num_labels=node.NUM_CLASSES,
        num_queries=node.QUERIES,
        d_model=node.HIDDEN_DIM,
        encoder_layers=node.PIXEL_DECODER.LAYERS,
        encoder_attention_heads=node.PIXEL_DECODER.HEADS,
        encoder_ffn_dim=node.PIXEL_DECODER.FFN_DIM,
        decoder_layers=node.TRANSFORMER_DECODER.LAYERS,
        decoder_attention_heads=node.TRANSFORMER_DECODER.HEADS,
        decoder_ffn_dim=node.TRANSFORMER_DECODER.FFN_DIM,
    )
    kind = "Segmentation" if node.MASK_HEAD.ENABLED else "ObjectDetection"
    return getattr(transformers, f"DetrFor{kind}")(config).eval()


@pytest.fixture(scope="session")
def write_tensorflow():
    """Function (prefix, {name: array}, ...) that writes a TensorFlow checkpoint of one shard.

    ``shards``, ``compression`` and ``endianness`` are only said to be so.
    """

    def write(prefix, values, *, shards=1, compression=0, endianness=0):
        table, data = {b"": _field(1, shards) + _field(2, endianness)}, bytearray()
        for name, value in sorted(values.items()):
            shape = b"".join(_field(2, _field(1, side)) for side in value.shape)
            parts = _field(1, TYPES[value.dtype.str[1:]]), _field(2, shape)
            place = _field(4, len(data)), _field(5, value.nbytes)
            table[name.encode()] = b"".join([*parts, *place])
            data += value.tobytes()
        block = _block(table, compression)
        index = _block({max(table): _varint(0) + _varint(len(block) - 5)}, compression)
        footer = _varint(0) + _varint(0) + _varint(len(block)) + _varint(len(index) - 5)
        footer = footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
        prefix.with_name(prefix.name + ".index").write_bytes(block + index + footer)
        prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)

    return write


TYPES = {name: number for number, name in tensorflow.DTYPES.items()}


def _varint(number):
    head, last = divmod(number, 128)
    return bytes([last]) if head == 0 else bytes([last | 128]) + _varint(head)


def _field(number, value):
    if isinstance(value, int):
        return _varint(8 * number) + _varint(value)
    return _varint(8 * number + 2) + _varint(len(value)) + value


def _block(entries, compression):
    data = bytearray()
    for key, value in entries.items():
        data += _varint(0) + _varint(len(key)) + _varint(len(value)) + key + value
    data += bytes(4) + (1).to_bytes(4, "little") + bytes([compression])
    return bytes(data + tensorflow._checksum(data))
