import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "datasets"


@pytest.fixture
def prepare(monkeypatch):
    """Function (name of a script, root, arguments) → its exit code."""

    def run(name, root, *arguments):
        path = SCRIPTS / f"prepare_{name}.py"
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        argv = [str(path), "--root", str(root), "--processes", "1", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        folder = {"ade20k": "ADEChallengeData2016"}.get(name, name)
        return module.main(module.__doc__, folder, module.conversions)

    return run
