"""Any manifest is a study or one line: values drawn from the schema itself, and text drawn from YAML's own syntax."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjobs.errors import ManifestError
from llmjobs.manifest import Manifest, dump_manifest, json_schema, load_manifest

SCHEMA = json_schema()
HOSTILE = st.sampled_from([
    "", ".", "..", "../../etc/passwd", "/etc/passwd", "a\0b", "a/b", "a\\b", "CON", "nul.txt", "LPT1", "a.", " a", "~",
    "x" * 300, "-rf", "$(id)", "`id`", "%s%n", "{{ 7 * 7 }}", "\x1b]52;c;AAAA\x07", "\u202egnp", "\ud800", "４bit",
    "http://user:pass@host/v1", "sk-ant-key", "hf_abcdefgh", 10**400, -1, 0.5, float("nan"), float("inf"), True, None,
    [], {}, [[]], {"a": 1}, "on", "1e999", "0x10", "2001-01-01",
])  # fmt: skip


def from_schema(schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that fit a JSON schema (the part of it that pydantic writes), a hostile one now and then."""
    if "$ref" in schema:
        return from_schema(SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[-1]], depth)
    if "anyOf" in schema:
        return st.one_of([from_schema(one, depth) for one in schema["anyOf"]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | HOSTILE
    makers: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "null": st.none,
        "boolean": st.booleans,
        "integer": lambda: st.integers(schema.get("minimum", -5), schema.get("maximum", 10**6)),
        "number": lambda: st.floats(0, 10, allow_nan=False),
        "string": lambda: st.sampled_from(["a", "demo", "mmlu", "llmjobs/demo-base", "all", "full"]) | HOSTILE,
        "array": lambda: st.lists(from_schema(schema.get("items", {}), depth + 1), max_size=2),
        "object": lambda: mapping(schema, depth),
    }
    return makers[schema["type"]]() if schema.get("type") in makers else HOSTILE


def mapping(schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    known = {
        name: st.deferred(lambda s=one: from_schema(s, depth + 1)) for name, one in schema.get("properties", {}).items()
    }
    required = {name: known.pop(name) for name in schema.get("required", ()) if name in known}
    return st.fixed_dictionaries(required, optional=known) | HOSTILE


def load(folder: Path, content: bytes, *overrides: str) -> None:
    """Load it: a study that can be written out and read again, or one line; within seconds either way."""
    path = folder / "m.yaml"
    path.write_bytes(content)
    began = time.process_time()
    try:
        study = load_manifest(path, overrides)
    except ManifestError as error:
        assert str(error).isprintable() and len(str(error)) < 2000
    else:
        assert Manifest.model_validate(yaml.safe_load(dump_manifest(study))) == study
        for name in (study.name, *(model.name for model in study.models)):
            assert Path(name).name == name and re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,99}", name, re.ASCII)
    assert time.process_time() - began < 10
    assert [p.name for p in folder.iterdir()] == ["m.yaml"]


@settings(max_examples=150)
@given(st.fixed_dictionaries({"models": from_schema(SCHEMA["properties"]["models"])}, optional={
    name: from_schema(one) for name, one in SCHEMA["properties"].items() if name != "models"
}))  # fmt: skip
def test_values_of_the_schema(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    load(tmp_path_factory.mktemp("fuzz"), yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass"))


PIECES = st.sampled_from([
    "models:", "- ", "  ", "\n", "\t", ": ", "? ", "&a ", "*a", "<<: *a", "!!python/object/apply:os.system ", "!!set ",
    "!!binary ", "!!timestamp ", "!!omap ", "!x ", "{", "}", "[", "]", ",", "'", '"', "|\n", ">-\n", "---\n", "...\n",
    "%YAML 9.9\n", "%TAG ! x\n", "#", "@", "`", "2001-01-01", "2001-13-45 99:99:99", "0x" + "f" * 4400, "9" * 5000,
    "1e999", ".inf", ".nan", "1:2:3", "0o7", "08", "~", "yes", "no", "on", "=", "name: a",
    "eval:", "id: llmjobs/demo-tiny",
    "\ufeff", "\x85", "\u2028", "\x00", "\x1b", "é", "\U0001f600",
])  # fmt: skip


@settings(max_examples=150)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_text_of_yamls_own_syntax(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    load(tmp_path_factory.mktemp("fuzz"), text.encode())


GOOD = "models: [llmjobs/demo-tiny]\neval: {benchmarks: [demo]}\n"


@given(
    st.text(max_size=30), st.sampled_from(["name", "models[0].id", "models[0]", "eval.benchmarks[0].file", "eval", "x"])
)
def test_overrides(tmp_path_factory: pytest.TempPathFactory, value: str, path: str) -> None:
    load(tmp_path_factory.mktemp("fuzz"), GOOD.encode(), f"{path}={value}")
    load(tmp_path_factory.mktemp("fuzz"), GOOD.encode(), value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("  endpoint: http://me:secret-word@host/v1", "models[0].endpoint: contains a user or password"),
        ("  endpoint: https://secret-word@host/v1", "models[0].endpoint: contains a user or password"),
        ("  endpoint: https://host/v1?key=secret-word", "models[0].endpoint: has a query string, fragment or space"),
        ("  endpoint: secret-word", "models[0].endpoint: is not a URL; write http://host:port/v1"),
        ("  endpoint: http://[secret-word", "models[0].endpoint: is not a URL"),
        ("  endpoint: http://h/v1\n    api_key_env: sk-secret-word", "must be the name of the environment variable"),
        ("  endpoint: http://h/v1\n    api_key_env: hf_secret_word", "must be the name of the environment variable"),
        ("  revision: ../../../../secret", "models[0].revision: '../../../../secret' is not a branch, tag or commit"),
        ("  revision: /etc/x", "is not a branch, tag or commit"),
        ("  name: ends.", "models[0].name: 'ends.' is not a valid folder name"),
    ],
)
def test_what_must_not_reach_results_or_paths(tmp_path: Path, line: str, says: str) -> None:
    said = refusal(tmp_path, f"models:\n  - id: a\n  {line}\n")
    assert says in said
    assert "secret-word" not in said


def refusal(folder: Path, text: str) -> str:
    """What a manifest of this text is refused with."""
    (path := folder / "m.yaml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("benchmarks", "says"),
    [
        ("[{file: Q.csv, question: q, answer: a}, {file: q.csv, question: q, answer: a}]", "is given twice"),
        ("[{file: q.csv, question: q, answer: a, subjects: [../../../up]}]", "your own file counts as one subject"),
        ("[{file: q.csv, question: q, answer: a, name: ../up}]", "is not a valid folder name"),
    ],
)
def test_benchmarks_that_would_share_or_leave_their_folder(tmp_path: Path, benchmarks: str, says: str) -> None:
    assert says in refusal(tmp_path, f"models: [a]\neval: {{benchmarks: {benchmarks}}}\n")
