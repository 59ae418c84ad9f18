"""Registries of the parts that a config chooses by name.

A pixel decoder is built by ``(cfg, backbone.output_shape())`` and says in ``level_channels`` how
wide its levels are, coarse first; a transformer decoder is built by ``(cfg, level_channels)``.
"""

from typing import Any

from fvcore.common.registry import Registry


class PartRegistry(Registry):
    """A registry that answers an unknown name with the config key and the known names."""

    def __init__(self, name: str, config_key: str) -> None:
        super().__init__(name)
        self._config_key = config_key

    def get(self, name: str) -> Any:
        """Return the part registered as ``name``; ValueError names the key and the known parts."""
        if name not in self:
            known = ", ".join(sorted(key for key, _ in self))
            raise ValueError(f"{self._config_key} is {name!r}; known names: {known}")
        return super().get(name)


PIXEL_DECODERS = PartRegistry("PIXEL_DECODERS", "MODEL.MASK_TRANSFORMER.PIXEL_DECODER.NAME")
TRANSFORMER_DECODERS = PartRegistry(
    "TRANSFORMER_DECODERS", "MODEL.MASK_TRANSFORMER.TRANSFORMER_DECODER.NAME"
)
