"""Models with the reference weights, beside what the official code makes of the same image."""

import importlib.util

import numpy as np
import pytest
import torch

from mask_transformers import model_zoo
from mask_transformers.checkpoint import load_official_state_dict


@pytest.fixture
def reference(shared):
    """Function from a zoo name to our raw outputs and the arrays of the official code.

    ``size`` is that of the image, ``padded`` what it is padded to after normalising.
    """
    spec = importlib.util.spec_from_file_location("fill", shared / "parity/fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)

    def run(name, size=(480, 640), padded=None):
        model = model_zoo.build(name)
        state = fill.pytorch_checkpoint(shared / f"parity/manifests/{name}.tsv")
        report = load_official_state_dict(model, state)
        assert (report.missing, report.unexpected, report.mismatched) == ([], [], [])
        image = torch.from_numpy(np.ascontiguousarray(fill.image(*size))).float()
        height, width = padded or size
        image = (image - model.pixel_mean) / model.pixel_std
        image = torch.nn.functional.pad(image, (0, width - size[1], 0, height - size[0]))
        with torch.no_grad():
            outputs = model.raw_outputs(image[None])
        return outputs, np.load(shared / f"parity/golden/{name}.npz")

    return run


@pytest.fixture(scope="session")
def difference():
    """Function from a tensor and an array to the relative norm of their difference."""

    def relative(found, golden):
        return np.linalg.norm(found.numpy() - golden) / np.linalg.norm(golden - golden.mean())

    return relative
