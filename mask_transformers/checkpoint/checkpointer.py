"""The checkpointer of training: nothing half-written, and errors that name the file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from ..output_files import write_atomically
from .load import CheckpointMismatchError, fitting_state_dict
from .name_maps import to_native_names
from .name_maps.deeplab2 import is_deeplab2
from .read import read_state_dict
from .tensorflow import find_index


class MaskTransformerCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with atomic files and strict reading.

    A file appears under its name only when it is complete, so that an interrupted run can always
    resume from the last checkpoint. Official names are translated before shapes are compared:
    published weights of another number of classes load all but the class head. Files of TensorFlow
    are read whole or not at all, as ``load_official_state_dict`` does: names and layouts differ so
    much there that a tensor left out is rather a mistake than another class head.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``{save_dir}/{name}.pth`` with the model, the checkpointables and ``kwargs``."""
        if not self.save_dir or not self.save_to_disk:
            return
        path = Path(self.save_dir) / f"{name}.pth"
        data = {"model": self.model.state_dict()}
        data.update((key, part.state_dict()) for key, part in self.checkpointables.items())
        data.update(kwargs)
        self.logger.info(f"Saving checkpoint to {path}")
        write_atomically(path, lambda file: torch.save(data, file))
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Let ``last_checkpoint`` name the file that a resumed run starts from."""
        path = Path(self.save_dir) / "last_checkpoint"
        write_atomically(path, lambda file: file.write_text(last_filename_basename))

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """As in Detectron2, but every failure names the file.

        FileNotFoundError: it is missing. ValueError: it cannot be read, a part of it does not fit
        (the optimizer's state, for example), it lacks parameters that are frozen, it holds no
        tensor of the model at all, or it is of TensorFlow and not exactly of this model.
        """
        if not path:
            return super().load(path, checkpointables)
        path = str(find_index(path) or path)
        local = self.path_manager.get_local_path(path.partition("?")[0])
        if not os.path.isfile(local):
            raise FileNotFoundError(f"there is no checkpoint {path}")
        try:
            return super().load(path, checkpointables)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"checkpoint {path} cannot be loaded: {reason}") from error
        finally:
            self._parsed_url_during_load = None  # Detectron2 leaves it set after a failure

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".index"):
            return {"model": read_state_dict(filename)}
        content = super()._load_file(filename)
        state = content.get("model")
        if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
            # A pickle with "model" but no "__author__", which Detectron2 takes for Caffe2's.
            content = {"model": state["model"]}
        if not isinstance(content["model"], Mapping):
            raise ValueError("it holds no state dict under 'model'")
        return content

    def _load_model(self, checkpoint: dict[str, Any]):
        system = type(self.model).__name__
        state = checkpoint["model"]
        whole = any(map(is_deeplab2, state))
        checkpoint["model"] = self._whole(state) if whole else to_native_names(system, state)
        before = set(self.model.state_dict())
        incompatible = super()._load_model(checkpoint)
        if not before.difference(incompatible.missing_keys):
            found = ", ".join(list(incompatible.unexpected_keys)[:3]) or "nothing"
            raise ValueError(f"no tensor of the model {system} is in it; it holds {found}, ...")
        frozen = {name for name, p in self.model.named_parameters() if not p.requires_grad}
        if lost := sorted(frozen.intersection(incompatible.missing_keys)):
            raise ValueError(
                f"it lacks parameters that are not trained: {', '.join(lost[:3])}, ..."
            )
        return incompatible

    def _whole(self, state: Mapping) -> dict:
        """The ``state`` of TensorFlow with our names; ValueError if it is not of this model."""
        try:
            return fitting_state_dict(self.model, state)[0]
        except CheckpointMismatchError as error:
            if not error.report.mismatched:
                raise
            raise ValueError(
                f"{error}\nto train with other classes than those of a file of TensorFlow, convert "
                "it first, with the config that it was made with (tools/convert_checkpoint.py)"
            ) from error
