"""Loading the weights of a model that is only evaluated: all of them or none."""

from collections.abc import Sequence

from torch import nn

from ..checkpoint.checkpointer import MaskTransformerCheckpointer


class StrictCheckpointer(MaskTransformerCheckpointer):
    """Refuses weights that leave a tensor of the model as it was."""

    def _load_model(self, checkpoint: dict):
        incompatible = super()._load_model(checkpoint)
        shapes = [name for name, *_ in incompatible.incorrect_shapes]
        missing = [name for name in incompatible.missing_keys if name not in shapes]
        if missing or shapes:
            raise ValueError(
                f"it does not cover the model: missing are {_shortened(missing)}; of another "
                f"shape are {_shortened(shapes)}"
            )
        return incompatible


def load_weights(model: nn.Module, path: str) -> None:
    """Load the whole of ``model`` from a checkpoint, in Detectron2's formats.

    FileNotFoundError or ValueError names the file that is missing, cannot be read or does not
    cover the model.
    """
    if not path:
        raise ValueError("MODEL.WEIGHTS is empty: it must name the checkpoint to evaluate")
    StrictCheckpointer(model).load(path)


def _shortened(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more
