"""Strict reading of config files: no duplicate or unknown keys, errors that name file and key."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

_BASE = "_BASE_"


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ValueError(f"key {key!r} is given twice, the second time in line {line}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def merge_config_file(cfg: CfgNode, path: str) -> None:
    """Merge a YAML file into ``cfg``, after the files that it names as ``_BASE_``.

    FileNotFoundError for a missing file; ValueError for one that is no YAML mapping, gives a key
    twice, or has an unknown key or a value of another type: it names the file and the key.
    """
    for file, content in _chain(path, ()):
        try:
            cfg.merge_from_other_cfg(CfgNode(_checked(cfg, content)))
        except (ValueError, AssertionError) as error:
            raise ValueError(f"config file {file}: {error}") from error


def merge_options(cfg: CfgNode, options: Sequence) -> None:
    """Merge ``[KEY, VALUE, …]``, as from a command line; ValueError names the key."""
    if len(options) % 2:
        raise ValueError(f"config options are pairs KEY VALUE, but these are odd: {list(options)}")
    for key, value in zip(options[::2], options[1::2], strict=True):
        if not isinstance(key, str):
            raise ValueError(f"{key!r} is no config key, in the options {list(options)}")
        current = _lookup(cfg, key)
        if isinstance(current, CfgNode):
            raise ValueError(f"{key} is a group of config keys and takes no value")
        cfg.merge_from_list([key, _as_float_if_wanted(current, value)])


def _chain(path: str, parents: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """Files and contents, bases first, without the keys ``_BASE_``."""
    if path in parents:
        raise ValueError(f"config file {path} is its own _BASE_, by way of {' -> '.join(parents)}")
    content = _read(path)
    bases = content.pop(_BASE, [])
    for base in [bases] if isinstance(bases, str) else bases:
        yield from _chain(_resolve(base, path), (*parents, path))
    yield path, content


def _resolve(base: str, path: str) -> str:
    base = os.path.expanduser(base)
    return base if "://" in base else os.path.normpath(os.path.join(os.path.dirname(path), base))


def _read(path: str) -> dict:
    if not PathManager.isfile(path):
        raise FileNotFoundError(f"there is no config file {path}")
    with PathManager.open(path, "r") as file:
        try:
            content = yaml.load(file, Loader=_StrictLoader)
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"config file {path}: {error}") from error
    if not isinstance(content, dict | None):
        raise ValueError(f"config file {path} is no mapping of keys to values")
    return content or {}


def _checked(cfg: CfgNode, content: Mapping, prefix: str = "") -> dict:
    """The content with integers made floats where the config has floats; unknown keys raise."""
    result: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        current = _lookup(cfg, name)
        if isinstance(value, Mapping) and isinstance(current, CfgNode):
            result[key] = _checked(cfg, value, f"{name}.")
        elif isinstance(current, CfgNode):
            raise ValueError(f"{name} is a group of config keys and takes no value")
        else:
            result[key] = _as_float_if_wanted(current, value)
    return result


def _lookup(cfg: CfgNode, name: str) -> Any:
    node: Any = cfg
    for part in name.split("."):
        if not isinstance(node, CfgNode) or part not in node:
            raise ValueError(f"unknown config key {name}{_suggestion(cfg, name)}")
        node = node[part]
    return node


def _suggestion(cfg: CfgNode, name: str) -> str:
    known = list(_leaves(cfg))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if not close:
        last = name.rsplit(".", 1)[-1]
        close = [key for key in known if key.rsplit(".", 1)[-1] == last][:1]
    return f"; did you mean {close[0]}?" if close else ""


def _leaves(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in cfg.items():
        yield f"{prefix}{key}"
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{key}.")


def _as_float_if_wanted(current: Any, value: Any) -> Any:
    """The config library takes 10 for no float; we do."""
    if not isinstance(current, float) or isinstance(value, bool):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
