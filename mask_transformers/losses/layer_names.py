"""Names of the losses of the layers of a decoder."""


def layer_suffix(layer: int, layers: int) -> str:
    """Nothing for the last of ``layers`` predictions, ``_0``, ``_1``, … for those before."""
    return "" if layer == layers - 1 else f"_{layer}"
