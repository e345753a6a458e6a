"""Field types shared by every section of a manifest, and errors that name the allowed values."""

import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import CoreSchema, core_schema

from llmjobs.errors import printable

SHOWN = 12
MEANT = {
    **dict.fromkeys(("gpu", "nvidia", "cuda:0", "cuda0"), "cuda"),
    **dict.fromkeys(("metal", "apple"), "mps"),
    **dict.fromkeys(("bf16", "brain"), "bfloat16"),
    **dict.fromkeys(("fp16", "half", "f16"), "float16"),
    **dict.fromkeys(("fp32", "f32", "float", "full"), "float32"),
    **dict.fromkeys(("4", "int4", "nf4", "fp4", "q4", "4-bit"), "4bit"),
    **dict.fromkeys(("8", "int8", "llm.int8", "q8", "8-bit"), "8bit"),
    **dict.fromkeys(("no", "false", "off", "null", "fp", "16bit"), "none"),
}
"""Common synonyms of an allowed value."""


def one_of(key: str, value: str, allowed: Iterable[str]) -> None:
    """Raise :class:`ValueError` in the project's wording unless ``value`` is among ``allowed``."""
    names = list(allowed)
    if value not in names:
        raise ValueError(f"{key}: {not_one_of(value, names)}")


def not_one_of(value: object, names: list[str]) -> str:
    """``'4bits' is not one of none, 8bit, 4bit, int8; did you mean '4bit'?``."""
    text = printable(str(value)[:60])
    shown = ", ".join(names[:SHOWN]) + (f" … ({len(names)} in total)" if len(names) > SHOWN else "")
    if (usual := MEANT.get(text.lower())) in names:
        return f"'{text}' is not one of {shown}; did you mean '{usual}'?"
    near = get_close_matches(text.lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    meant = next((n for n in names if near and n.lower() == near[0]), None)
    return f"'{text}' is not one of {shown}" + (f"; did you mean '{meant}'?" if meant else "")


MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+-]*[A-Za-z0-9_+-])?")
"""No dot at the end: Windows drops it, so two names would become one."""
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that control a terminal or reorder text; these values are printed."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NOT_IN_REVISIONS = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|^[/.-]|[/.]$|\.lock$")
"""Not allowed in a branch, tag or commit (git-check-ref-format), which becomes a path in the hub's cache."""
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(1, 10))}


class Section(BaseModel):
    """A frozen mapping that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any) -> Any:
        """Refuse ``threads: yes``: YAML reads it as true, which Python would take for 1."""
        for key, one in value.items() if isinstance(value, dict) else ():
            field = cls.model_fields.get(key)
            for given in one if isinstance(one, list) else one.values() if isinstance(one, dict) else [one]:
                if isinstance(given, bool) and field and _takes_numbers(field.annotation):
                    was = "yes (true, on)" if given else "no (false, off)"
                    raise ValueError(f"{key}: {was} is not a number; write a number")
        return value


def _takes_numbers(annotation: Any) -> bool:
    """Whether a field holds numbers, alone or in a list, and no ``true`` or ``false``."""
    kinds = set(_kinds_in(annotation))
    return bool(kinds & {int, float}) and bool not in kinds


def _kinds_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    elif get_origin(annotation) is not Literal:
        for inner in get_args(annotation):
            yield from _kinds_in(inner)


class OneOf:
    """Names that a registry has at the time of the check: ``Annotated[str, OneOf(names)]`` is an open ``Literal``."""

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        """``names`` is asked at each check."""
        self.names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"enum": list(self.names()), "type": "string"}

    def _check(self, value: Any) -> str:
        names = list(self.names())
        if not isinstance(value, str) or value not in names:
            raise ValueError(not_one_of(value, names))
        return value


def _file_name(value: str) -> str:
    if len(value) > MAX_NAME or not _NAME.fullmatch(value) or value.lower().split(".")[0] in _WINDOWS_DEVICES:
        raise ValueError(
            f"'{value[:60]}' is not a valid folder name; "
            f"use at most {MAX_NAME} characters: letters, digits, '.', '_', '+', '-'"
        )
    return value


def slug(text: str, longest: int = MAX_NAME) -> str:
    """Turn any text into a name that :data:`FileName` accepts: ``meta-llama/Llama-3.2-1B`` → ``Llama-3.2-1B``."""
    last = text.rstrip("/").rsplit("/", 1)[-1]
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", last).strip("-._+")[: longest - 2].rstrip(".")
    return f"m-{name}" if name.lower().split(".")[0] in _WINDOWS_DEVICES or not name else name


def _short_text(value: str) -> str:
    if _CONTROLS.search(value) or len(value) > 4096:
        raise ValueError("text with control characters or over 4,096 characters is not allowed here")
    return value


def _revision(value: str) -> str:
    if len(value) > 250 or _NOT_IN_REVISIONS.search(value):
        raise ValueError(f"{value[:60]!r} is not a branch, tag or commit; copy it from the repository's page")
    return value


def _address(value: str) -> str:
    """Refuse secrets in an address, because the manifest is copied into the results; do not repeat the address."""
    wanted = "write http://host:port/v1 or https://host/v1"
    try:
        found = urlsplit(value)
        port = found.port
    except ValueError:
        raise ValueError(f"is not a URL; {wanted}") from None
    if found.username is not None or found.password is not None:
        raise ValueError("contains a user or password, which would appear in every result; use api_key_env: instead")
    if found.scheme not in ("http", "https") or not found.hostname or port == 0 or not value.isprintable():
        raise ValueError(f"is not a URL; {wanted}")
    if found.query or found.fragment or " " in value:
        raise ValueError(
            f"has a query string, fragment or space, perhaps an API key; {wanted}, and supply the API key through "
            "api_key_env:"
        )
    return value


def _variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value) or value.startswith(("hf_", "sk_", "sk-")):
        raise ValueError("must be the name of the environment variable that contains the key, not the key itself")
    return value


FileName = Annotated[str, Field(min_length=1), AfterValidator(_file_name)]
"""A name that becomes a folder: no separators, no ``..``, at most 100 characters."""
ShortText = Annotated[str, Field(min_length=1), AfterValidator(_short_text)]


def _beside_manifest(value: str, info: ValidationInfo) -> str:
    """Resolve a relative path beside the manifest if it does not exist here; ``base`` is in the context."""
    base = (info.context or {}).get("base")
    try:
        return str(base / value) if base and not Path(value).exists() and (base / value).exists() else value
    except OSError:
        return value


def _named_or_beside(value: str, info: ValidationInfo) -> str:
    return value if value == "own" or value.startswith("hub:") else _beside_manifest(value, info)


def _demo_or_beside(value: str, info: ValidationInfo) -> str:
    return value if value == "demo" else _named_or_beside(value, info)


_HUB_PAGE = re.compile(
    r"(?:(?:https?|hf)://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<data>datasets/|spaces/)?(?P<id>[\w.-]+/[\w.-]+)"
    r"(?:/(?:tree|blob|resolve)/(?P<revision>[\w.-]+)(?P<inner>/\S+)?)?/?(?:[?#]\S*)?"
)


def _model_id(value: str, info: ValidationInfo) -> str:
    """Refuse a pasted address and say how to write it as an id."""
    if match := _HUB_PAGE.fullmatch(value):
        if match["data"]:
            raise ValueError(f"{value} is a data set or a space, not a model; write the model's name OWNER/NAME")
        revision = f" and revision: {match['revision']}" if match["revision"] not in (None, "main") else ""
        raise ValueError(f"{value} is the address of a web page; set id: {match['id']}{revision}")
    if value.startswith(("http://", "https://")):
        raise ValueError(
            f"{value} is an address; for a model on a server, set model: NAME and endpoint: {value}; for a "
            "model on the hub, set id: OWNER/NAME"
        )
    if match := re.match(r"([a-z][a-z0-9+.-]{1,9})://", value):
        raise ValueError(f"{value} cannot be read from {match[1]}://; download the model and name its folder")
    return _dotted_beside(value, info)


def _dotted_beside(value: str, info: ValidationInfo) -> str:
    return _beside_manifest(value, info) if value.startswith(("./", "../")) else value


def _gguf_source(value: str, info: ValidationInfo) -> str:
    """Take a path that begins with a dot from beside the manifest if its folder does not exist here."""
    if not value.startswith(("./", "../")):
        return value
    folder, star, rest = value.partition("*")
    place = folder.rpartition("/")[0] if star else folder
    found = _beside_manifest(place, info)
    return value if found == place else f"{found}{value[len(place) :]}"


DataPath = Annotated[ShortText, AfterValidator(_beside_manifest)]
"""A file or folder; a relative one is taken from the working folder first, then from the manifest's folder."""
OwnOrPath = Annotated[ShortText, AfterValidator(_named_or_beside)]
"""``own``, ``hub:OWNER/DATASET`` or a :data:`DataPath`."""
QuestionsSource = Annotated[ShortText, AfterValidator(_demo_or_beside)]
"""``demo``, or an :data:`OwnOrPath`."""
ModelId = Annotated[ShortText, AfterValidator(_model_id)]
"""A name on the hub or a folder; one that starts with ``./`` or ``../`` as a :data:`DataPath`."""
GgufSource = Annotated[ShortText, AfterValidator(_gguf_source)]
"""A repository on the hub, a folder, or a path with a star; a relative one as a :data:`ModelId`."""
Address = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_address)]
"""URL of a server, without a user, a password or a query."""
VariableName = Annotated[str, Field(min_length=1), AfterValidator(_variable)]
"""Name of an environment variable."""
Revision = Annotated[str, Field(min_length=1), AfterValidator(_revision)]
"""A branch, tag or commit on the hub."""
