"""Reads a YAML file into plain values and remembers the line of each path.

PyYAML's safe loader only: no tags that build objects. Size, depth and the number of values are limited, so an alias
bomb or a huge file ends in one line.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmjobs.errors import ManifestError

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 64
_NOT_IN_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufeff\uff00-\ufffd\U00010000-\U0010ffff]")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}

ValuePath = tuple[str | int, ...]


class ManifestLoader(yaml.SafeLoader):
    """The safe loader, which leaves dates as the text that was written: the field that holds one reads it."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True)
class Source:
    """A parsed file: ``values`` as plain Python, ``lines`` from a path to its 1-based line."""

    name: str
    values: dict[str, Any]
    lines: Mapping[ValuePath, int] = field(default_factory=dict)

    def where(self, path: ValuePath) -> str:
        """``file:line`` of ``path``, or of its nearest known parent."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        return self.name


def read_yaml(file: Path, name: str | None = None) -> Source:
    """Parse ``file``.

    Raises:
        ManifestError: not a readable UTF-8 file of at most 1 MiB with one YAML mapping in it.

    """
    name = name or str(file)
    return parse_yaml(_read_text(file, name), name)


def parse_yaml(text: str, name: str) -> Source:
    """Parse the text of a manifest; messages call it ``name``."""
    if bad := _NOT_IN_YAML.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise ManifestError(f"{name}:{line}: the character {bad.group()!r} is not allowed in YAML; remove it")
    loader = ManifestLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ManifestError(f"{name}: the file is empty; begin it with 'models:' and a model")
        if not isinstance(node, yaml.MappingNode):
            raise ManifestError(
                f"{name}:1: a manifest must be a mapping (key: value), not a {_kind(node)}; begin it with 'models:'"
            )
        builder = _Builder(name, loader)
        return Source(name, builder.mapping(node, (), 0), builder.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{name}:{mark.line + 1}" if mark else name
        raise ManifestError(f"{at}: not valid YAML: {_yaml_reason(error)}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ManifestError(f"{name}: not valid YAML: {' '.join(str(error).split())[:200]}; quote the value") from None
    finally:
        loader.dispose()


def _yaml_reason(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem or error.context)
    if "mapping values are not allowed" in problem:
        return "two keys on one line, or a ': ' in a value; write one key per line, and quote the value"
    if "\\t" in problem or "tab" in problem:
        return f"{problem}; indent with spaces, not tabs"
    return f"{problem}; check the quotes, brackets and indentation there"


def _read_text(file: Path, name: str) -> str:
    try:
        if file.is_dir():
            raise ManifestError(f"{name}: is a folder, not a manifest; name a .yaml file in it")
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ManifestError(
            f"{name}: cannot be read: {reason}; give the path of a .yaml file, or the name of a bundled one: demo, "
            "smoke, laptop, small, medium, portfolio, chat, mtbench, matrix"
        ) from None
    if len(raw) > MAX_BYTES:
        raise ManifestError(f"{name}: the manifest is larger than 1 MiB; did you pass a data file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ManifestError(f"{name}:{line}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None


def _kind(node: yaml.Node) -> str:
    return "list" if isinstance(node, yaml.SequenceNode) else "single value"


class _Builder:
    """Turns YAML nodes into values, counting as aliases expand."""

    def __init__(self, name: str, loader: ManifestLoader) -> None:
        self.name, self.loader = name, loader
        self.lines: dict[ValuePath, int] = {}
        self.count = 0

    def value(self, node: yaml.Node, path: ValuePath, depth: int) -> Any:
        self.lines[path] = node.start_mark.line + 1
        self.count += 1
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise ManifestError(
                f"{self.name}:{node.start_mark.line + 1}: more than {MAX_VALUES} values or {MAX_DEPTH} levels after "
                "its aliases are expanded; write the values out"
            )
        if node.tag not in _PLAIN_TAGS:
            raise ManifestError(f"{self.name}:{node.start_mark.line + 1}: the tag {node.tag} is not allowed; remove it")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, i), depth + 1) for i, child in enumerate(node.value)]
        return self.loader.construct_object(node)

    def mapping(self, node: yaml.MappingNode, path: ValuePath, depth: int) -> dict[str, Any]:
        self.lines.setdefault(path, node.start_mark.line + 1)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            line = key_node.start_mark.line + 1
            if key is None:
                raise ManifestError(f"{self.name}:{line}: a key must be a plain word")
            if key in result:
                raise ManifestError(
                    f"{self.name}:{line}: {key!r} is given twice; keep one, or begin the second entry with '- '"
                )
            result[key] = self.value(value_node, (*path, key), depth + 1)
            self.lines[(*path, key)] = line
        return result
