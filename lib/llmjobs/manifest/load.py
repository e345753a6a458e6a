"""Read a manifest file into a validated :class:`Manifest`; validation happens only here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llmjobs.errors import ManifestError
from llmjobs.manifest.fields import not_one_of, slug
from llmjobs.manifest.overrides import apply_overrides
from llmjobs.manifest.schema import Manifest
from llmjobs.manifest.yaml_source import Source, ValuePath, read_yaml

BUILT_IN = Path(__file__).parent.parent / "manifests"


def load_manifest(file: str | Path, overrides: Sequence[str] = ()) -> Manifest:
    """Read, override and validate a manifest.

    ``file`` is a path, or the name of a bundled manifest such as ``demo`` or ``manifests/demo.yaml`` if there is no
    such file here.

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
        same = [one for one in problems[1:] if _place(one) == _place(problems[0])]
        raise ManifestError(_describe(source, problems[0], same)) from None


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


def _place(problem: ErrorDetails) -> ValuePath:
    return tuple(p for p in problem["loc"] if not _is_branch(p))


def _describe(source: Source, problem: ErrorDetails, other_branches: Sequence[ErrorDetails]) -> str:
    path = _place(problem)
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
        numbers = next((wanted for one in other_branches if (wanted := _wanted(one))), None)
        if numbers:
            message = f"must be {', '.join(allowed)}, or {numbers}, not {_short(problem['input'])}"
        else:
            message = not_one_of(problem["input"], allowed)
    elif kind == "missing":
        path, message = path[:-1], f"{path[-1]!r} is missing; add it"
    elif branch := next((one for one in other_branches if one["type"] == "literal_error"), None):
        return _describe(source, branch, [problem])
    elif wanted := _wanted(problem):
        message = f"must be {wanted}, not {_short(problem['input'])}"
    else:
        message = f"{problem['msg'][0].lower()}{problem['msg'][1:]}, not {_short(problem['input'])}"
    return f"{where}: {render_path(path)}{': ' if path else ''}{message}"


WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_too_short": "at least {min_length} characters of text",
    "string_too_long": "at most {max_length} characters of text",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of at most {max_length}",
    "greater_than_equal": "{ge} or more",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    **dict.fromkeys(
        ("date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact"),
        "a date written as YYYY-MM-DD",
    ),
}
"""What each kind of pydantic error asks for, without words from Python."""


def _wanted(problem: ErrorDetails) -> str | None:
    text = WANTED.get(problem["type"])
    context = problem.get("ctx", {})
    shown = {key: f"{value:,}".removesuffix(".0") for key, value in context.items() if isinstance(value, int | float)}
    return text.format_map(shown) if text else None


def _is_branch(step: str | int) -> bool:
    """Whether pydantic added a step to the path for a member of a union; people did not write it."""
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
    if value is None:
        return "nothing"
    if isinstance(value, Mapping | list):
        return f"{'a' if value else 'an empty'} {'mapping' if isinstance(value, Mapping) else 'list'}"
    return repr(value)[:60]
