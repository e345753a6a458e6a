"""From a manifest file to a validated :class:`Manifest`: the only place that validates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llmjobs.errors import ManifestError
from llmjobs.manifest.fields import slug
from llmjobs.manifest.overrides import apply_overrides
from llmjobs.manifest.schema import Manifest
from llmjobs.manifest.suggest import not_one_of
from llmjobs.manifest.yaml_source import Source, ValuePath, read_yaml

BUILT_IN = Path(__file__).parent.parent / "manifests"


def load_manifest(file: str | Path, overrides: Sequence[str] = ()) -> Manifest:
    """Read, override and validate a manifest.

    ``file`` is a path; a bare name such as ``demo`` or ``manifests/demo.yaml`` that is no file here stands for one
    that comes with the package.

    Raises:
        ManifestError: one line with file, line, path, what is allowed and, for a typo, the nearest name.

    """
    path = _find(Path(file))
    source = apply_overrides(read_yaml(path, str(file)), overrides)
    source.values.setdefault("name", slug(path.stem))
    return validate(source, base=path.parent)


def validate(source: Source, base: Path) -> Manifest:
    """Validate parsed values; relative paths are taken from the working folder first, then from ``base``."""
    try:
        return Manifest.model_validate(source.values, context={"base": base})
    except ValidationError as error:
        # an unknown key explains a missing one
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        raise ManifestError(_describe(source, problems[0])) from None


def dump_manifest(manifest: Manifest) -> str:
    """The manifest as YAML with every default written out."""
    return yaml.safe_dump(manifest.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def _find(path: Path) -> Path:
    try:
        if path.exists():
            return path
    except (OSError, ValueError):
        return path
    named = BUILT_IN / f"{path.name.removesuffix('.yaml')}.yaml"
    if path.parent in (Path(), Path("manifests")) and named.is_file():
        return named
    return path


def _describe(source: Source, problem: ErrorDetails) -> str:
    path: ValuePath = tuple(p for p in problem["loc"] if not _is_branch(p))
    where = source.where(path)
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "value_error":
        message = str(context["error"])
        key, _, rest = message.partition(": ")
        if rest and key in _fields_at(path):
            path, message = (*path, key), rest
            where = source.where(path)
    elif kind == "extra_forbidden":
        path, message = path[:-1], f"unknown key {not_one_of(path[-1], _fields_at(path[:-1]))}"
    elif kind == "literal_error":
        allowed = [a.strip("' ") for a in context["expected"].replace(" or ", ",").split(",")]
        message = not_one_of(problem["input"], allowed)
    elif kind == "missing":
        path, message = path[:-1], f"{path[-1]!r} is missing; add it"
    else:
        message = f"{problem['msg'][0].lower()}{problem['msg'][1:]}, not {_short(problem['input'])}"
    return f"{where}: {render_path(path)}{': ' if path else ''}{message}"


def _is_branch(step: str | int) -> bool:
    """Pydantic puts the tried member of a union into the path; people did not write it."""
    return isinstance(step, str) and (step in {"int", "str", "constrained-int", "constrained-str"} or "[" in step)


def _fields_at(path: ValuePath) -> list[str]:
    """Names of the keys that the schema has at ``path``."""
    model: Any = Manifest
    for step in path:
        if isinstance(step, int):
            continue
        field = model.model_fields.get(step) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = _section_of(field.annotation) if field else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _section_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_of(a) for a in getattr(annotation, "__args__", ()))
    return next((a for a in inner if a is not None), None)


def render_path(path: ValuePath) -> str:
    """``("models", 0, "id")`` → ``models[0].id``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _short(value: object) -> str:
    if isinstance(value, Mapping | list):
        return f"a {'mapping' if isinstance(value, Mapping) else 'list'}"
    return repr(value)[:60]
