"""Loading weights: strictly, with a report, and without touching the model on failure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from .name_maps import native_name, to_native_names
from .name_maps.deeplab2 import is_deeplab2
from .read import as_tensor


@dataclass
class LoadReport:
    """Names of tensors; ``mismatched`` has (name, shape in the file, shape in the model)."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple, tuple]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors fit"]
        lines += [f"missing from the checkpoint: {name}" for name in self.missing]
        lines += [f"unknown to the model: {name}" for name in self.unexpected]
        lines += [
            f"shape of {name}: {found} in the checkpoint, {wanted} in the model"
            for name, found, wanted in self.mismatched
        ]
        return "\n".join(lines)


class CheckpointMismatchError(ValueError):
    """Weights that do not cover the model; ``report`` says which tensors."""

    def __init__(self, report: LoadReport) -> None:
        super().__init__(f"the checkpoint does not fit the model:\n{report}")
        self.report = report


def load_official_state_dict(model: nn.Module, state_dict: Mapping) -> LoadReport:
    """Load a state dict with official names (or ours) into ``model``.

    Values are tensors or arrays. Returns the report, in official names where the checkpoint has
    them. CheckpointMismatchError: see ``fitting_state_dict``; the model is unchanged then.
    """
    native, report = fitting_state_dict(model, state_dict)
    model.load_state_dict(native, strict=False)
    return report


def fitting_state_dict(model: nn.Module, state_dict: Mapping) -> tuple[dict, LoadReport]:
    """``state_dict`` with our names, and the report on it.

    CheckpointMismatchError when a tensor of the model is missing or has another shape, or any is
    unknown in a checkpoint of TensorFlow.
    """
    system = type(model).__name__
    official = {native_name(system, name): name for name in state_dict}
    native = {
        name: as_tensor(official.get(name, name), value)
        for name, value in to_native_names(system, state_dict).items()
    }
    report = _compare(native, model.state_dict(), official)
    unknown = report.unexpected if any(map(is_deeplab2, state_dict)) else []
    if report.missing or report.mismatched or unknown:
        raise CheckpointMismatchError(report)
    return native, report


def _compare(native: Mapping, wanted: Mapping, official: Mapping) -> LoadReport:
    report = LoadReport(missing=[name for name in wanted if name not in native])
    for name, tensor in native.items():
        if name not in wanted:
            report.unexpected.append(official.get(name, name))
        elif tensor.shape != wanted[name].shape:
            shapes = (tuple(tensor.shape), tuple(wanted[name].shape))
            report.mismatched.append((official.get(name, name), *shapes))
        else:
            report.loaded.append(official.get(name, name))
    return report
