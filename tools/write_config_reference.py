"""Write docs/config.md from the comments of mask_transformers/config.py.

    python tools/write_config_reference.py [--check]

The comment lines directly above a key describe it; a key without any is an error.
"""

import argparse
import ast
import io
import os
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCE = CHECKOUT / "mask_transformers" / "config.py"
OUTPUT = CHECKOUT / "docs" / "config.md"
HEADER = """# Config reference

The keys that `mask_transformers.add_mask_transformer_config` adds to those of
Detectron2, with their defaults. This file is written by `tools/write_config_reference.py` from
the comments in `mask_transformers/config.py`.
"""


@dataclass(frozen=True)
class Entry:
    """One key: its default as Python source, and what it means."""

    default: str
    meaning: str


def parse(source: str) -> tuple[dict[str, str], dict[str, Entry]]:
    """Nodes {name: comment} and keys {full name: Entry} that the functions in ``source`` set.

    ValueError gives the line of a key without comment.
    """
    comments = _comments(source)
    nodes: dict[str, str] = {}
    entries: dict[str, Entry] = {}
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        aliases = {"cfg": ""}
        for statement in function.body:
            if isinstance(statement, ast.Assign):
                _add(statement, aliases, comments, nodes, entries)
    return nodes, entries


def _add(statement: ast.Assign, aliases, comments, nodes, entries) -> None:
    [target] = statement.targets
    if isinstance(target, ast.Name):  # node = cfg.MODEL.SOMETHING
        aliases[target.id] = _full_name(statement.value, aliases)
        return
    name = _full_name(target, aliases)
    text = _comment_above(statement.lineno, comments)
    if not text:
        raise ValueError(f"line {statement.lineno}: {name} has no comment above it")
    if isinstance(statement.value, ast.Call):  # CN()
        nodes[name] = text
    else:
        entries[name] = Entry(repr(ast.literal_eval(statement.value)), text)


def _full_name(expression: ast.expr, aliases: dict[str, str]) -> str:
    if isinstance(expression, ast.Name):
        return aliases[expression.id]
    if not isinstance(expression, ast.Attribute):
        raise ValueError(f"line {expression.lineno}: {ast.unparse(expression)} is no config key")
    parent = _full_name(expression.value, aliases)
    return f"{parent}.{expression.attr}" if parent else expression.attr


def _comments(source: str) -> dict[int, str]:
    """Text of the comments that stand on a line of their own, by line number."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokens
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")
    }


def _comment_above(line: int, comments: dict[int, str]) -> str:
    lines: list[str] = []
    while (line := line - 1) in comments:
        lines.insert(0, comments[line])
    return " ".join(lines)


def entries(source: Path = SOURCE) -> dict[str, Entry]:
    """All keys of the package by their full name."""
    return parse(source.read_text(encoding="utf-8"))[1]


def reference(source: Path = SOURCE) -> str:
    """The whole text of docs/config.md: a section and a table for every node."""
    nodes, keys = parse(source.read_text(encoding="utf-8"))
    sections: dict[str, list[str]] = {name: [] for name in nodes}
    for name, entry in keys.items():
        node, _, key = name.rpartition(".")
        meaning = entry.meaning.replace("|", "\\|")
        sections.setdefault(node, []).append(f"| `{key}` | `{entry.default}` | {meaning} |")
    parts = [HEADER]
    for node, rows in sections.items():
        about = f"\n{nodes[node]}\n" if node in nodes else ""
        table = "\n".join(["| key | default | meaning |", "| --- | --- | --- |", *rows])
        parts.append(f"\n## {node}\n{about}" + (f"\n{table}\n" if rows else ""))
    return "".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Write the reference, or with ``--check`` only say whether it is stale (status 1)."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    text = reference()
    if options.check:
        if options.output.is_file() and options.output.read_text(encoding="utf-8") == text:
            return 0
        print(f"{options.output} is stale; run python {__file__}", file=sys.stderr)
        return 1
    temporary = options.output.with_name(options.output.name + ".tmp")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
