"""Manifests: what is accepted, what is refused and in which words."""

from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.errors import ManifestError
from llmjobs.manifest import Manifest, dump_manifest, json_schema, load_manifest
from llmjobs.manifest.fields import slug
from llmjobs.manifest.yaml_source import parse_yaml

ROOT = Path(__file__).parents[2]
GOOD = """\
models:
  - llmjobs/demo-base
  - id: meta-llama/Llama-3.2-1B
    quantization: 4bit
eval:
  benchmarks:
    - name: mmlu
      subjects: [astronomy, business_ethics]
      num_fewshot: 5
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text: str | bytes, *overrides: str) -> Manifest:
        path = Path("study.yaml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_manifest(path, overrides)

    return load


def test_short_forms_and_derived_names(load):
    study = load(GOOD)
    assert study.name == "study"
    assert [m.name for m in study.models] == ["demo-base", "Llama-3.2-1B-4bit"]
    assert study.eval.benchmarks[0].subject_names() == ["astronomy", "business_ethics"]
    assert load(GOOD, "eval.benchmarks=[demo]").eval.benchmarks[0].name == "demo"


def test_every_default_is_written_out(load):
    study = load(GOOD)
    written = yaml.safe_load(dump_manifest(study))
    assert written["models"][0]["trust_remote_code"] is False
    assert written["eval"]["batch_tokens"] == "auto"
    assert Manifest.model_validate(written) == study


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            ("4bit", "4bits"),
            "study.yaml:4: models[1].quantization: '4bits' is not one of none, 8bit, 4bit, int8; did you mean '4bit'?",
        ),
        (
            ("quantization:", "quantisation:"),
            "study.yaml:4: models[1]: unknown key 'quantisation' is not one of id, name,",
        ),
        (("astronomy", "astronomie"), "did you mean 'astronomy'?"),
        (("name: mmlu", "name: mlmu"), "study.yaml:7: eval.benchmarks[0].name: 'mlmu' is not one of mmlu"),
        (
            ("num_fewshot: 5", "num_fewshot: 6"),
            "study.yaml:9: eval.benchmarks[0].num_fewshot: 6 is more than the 5 that mmlu has",
        ),
        (("num_fewshot: 5", "num_fewshot: five"), "study.yaml:9: eval.benchmarks[0].num_fewshot: "),
        (
            ("  - id: meta-llama/Llama-3.2-1B\n", "  - revision: main\n"),
            "study.yaml:3: models[1]: 'id' is missing; add it",
        ),
        (("models:", "modles:"), "study.yaml:1: unknown key 'modles' is not one of"),
        (
            ("  - llmjobs/demo-base\n", "  - llmjobs/demo-base\n  - llmjobs/demo-base\n"),
            "the name 'demo-base' is used for two",
        ),
        (("quantization: 4bit", "{quantization: 4bit"), "study.yaml:5: not valid YAML"),
        (
            ("quantization: 4bit", "quantization: 4bit\n    quantization: 8bit"),
            "study.yaml:5: 'quantization' is given twice",
        ),
        (("quantization: 4bit", "device: mps\n    quantization: 4bit"), "does not support Apple's GPU"),
        (("quantization: 4bit", "name: ../up"), "'../up' is not a valid folder name"),
        (("quantization: 4bit", "name: con"), "is not a valid folder name"),
        (
            ("models:", "models: !!python/object/apply:os.system ['echo no']\nx:"),
            "study.yaml:1: the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed",
        ),
    ],
)
def test_a_mistake_is_one_line_with_place_and_remedy(load, change, line):
    with pytest.raises(ManifestError) as caught:
        load(GOOD.replace(*change, 1))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "the file is empty"),
        (b"- a\n", "a manifest must be a mapping"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"name: a\nmodels: ['\x07']\n", "study.yaml:2: the character '\\x07' is not allowed"),
        (
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(8)),
            "levels after its aliases",
        ),
        (b"a: " + b"[" * 5000, "not valid YAML"),
        (b"#" * (51 << 20), "larger than 1 MiB"),
    ],
    ids=["empty", "list", "not-utf8", "control", "alias-bomb", "deep", "huge"],
)
def test_hostile_files(load, content, line):
    with pytest.raises(ManifestError) as caught:
        load(content)
    assert line in str(caught.value)


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(ManifestError, match="is a folder"):
        load_manifest(tmp_path)
    with pytest.raises(ManifestError, match="No such file"):
        load_manifest(tmp_path / "none.yaml")
    with pytest.raises(ManifestError, match="cannot be read"):
        load_manifest("a\0b")


def test_overrides(load):
    study = load(GOOD, "models[1].quantization=8bit", "eval.seed=7", "models[2]=llmjobs/demo-tiny", "name=other")
    assert study.models[1].quantization == "8bit"
    assert study.models[1].name == "Llama-3.2-1B-8bit"
    assert (study.eval.seed, study.models[2].name, study.name) == (7, "demo-tiny", "other")


def test_overrides_of_the_short_forms(load):
    short = "models: [llmjobs/demo-base]\neval: {benchmarks: [demo]}\n"
    study = load(short, "models[0].quantization=4bit", "eval.benchmarks[0].limit=3")
    assert (study.models[0].id, study.models[0].quantization) == ("llmjobs/demo-base", "4bit")
    assert (study.eval.benchmarks[0].name, study.eval.benchmarks[0].limit) == ("demo", 3)
    assert load(short, "models[0].id=llmjobs/demo-tiny").models[0].name == "demo-tiny"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("models[9].id=x", "there is no entry 9 to set here; the list has 2 entries"),
        ("models[1].quantization", "write path=value"),
        ("models[x].id=1", "not a path"),
        ("eval.seed=-1", "eval.seed: must be 0 or more, not -1"),
        ("eval.seed=[", "the value is not valid YAML"),
        ("models.id=x", "there is no 'id' to set here"),
    ],
)
def test_wrong_overrides(load, override, line):
    with pytest.raises(ManifestError) as caught:
        load(GOOD, override)
    assert line in str(caught.value)


def test_a_date_is_written_with_or_without_quotes(load):
    plain, quoted = (load(f"date: {text}\n{GOOD}") for text in ("2026-07-26", "'2026-07-26'"))
    assert plain.date == quoted.date == load(GOOD, "date=2026-07-26").date
    assert load(GOOD, "models[1].revision=2024-01-01").models[1].revision == "2024-01-01"


@pytest.mark.parametrize("date", ["2026-07-32", "26 July", "20260726", "2026-07-26 10:00"])
def test_another_date_is_told_how_to_be_written(load, date):
    for arguments in ((f"date: {date}\n{GOOD}",), (GOOD, f"date={date}")):
        with pytest.raises(ManifestError, match="date: must be a date written as YYYY-MM-DD"):
            load(*arguments)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("eval.threads=yes", "eval.threads: yes (true, on) is not a number"),
        ("eval.seed=no", "eval.seed: no (false, off) is not a number"),
        ("matrix={threads: [on]}", "matrix.threads: yes (true, on) is not a number"),
        ("eval.threads=many", "eval.threads: must be auto, or a whole number, not 'many'"),
        ("models[1].thinking=-5", "models[1].thinking: must be off, on, or 1 or more, not -5"),
        ("models=[]", "models: must be a list of 1 or more, not an empty list"),
        ("models[0]=null", "models[0]: must be a mapping (key: value), not nothing"),
        ("eval.benchmarks[0].limit=1.5", "limit: must be a whole number, not 1.5"),
        ("models[1].chat_template=perhaps", "chat_template: must be true or false, not 'perhaps'"),
    ],
)
def test_a_wrong_value_is_told_what_is_allowed_without_python(load, override, line):
    with pytest.raises(ManifestError) as caught:
        load(GOOD, override)
    assert line in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_manifest_or_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "m.yaml"
    path.write_bytes(data)
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert "\n" not in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "name", "models", "eval", "benchmarks", "subjects", "quantization", "num_fewshot", "file"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["name", "models", "eval", "description"]), VALUES, max_size=4))
def test_any_values_give_a_manifest_or_one_line(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("fuzz") / "m.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
        load_manifest(path)
    except ManifestError as error:
        assert "\n" not in str(error)


@given(st.text(max_size=150))
def test_a_slug_is_always_a_folder_name(text):
    Manifest.model_validate({"name": slug(text), "models": ["a"]})


@pytest.mark.parametrize("path", sorted((ROOT / "manifests").glob("*.yaml")), ids=lambda p: p.name)
def test_the_manifests_that_come_along_are_valid(path):
    assert load_manifest(path).name == path.stem


def test_a_built_in_manifest_is_found_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_manifest("manifests/demo.yaml") == load_manifest("demo")


def test_schema_has_every_section():
    schema = json_schema()
    assert set(Manifest.model_fields) == set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_lines_are_known_for_every_value():
    source = parse_yaml(GOOD, "x")
    assert source.where(("models", 1, "quantization")) == "x:4"
    assert source.where(("models", 1, "nothing", 3)) == "x:3"


SHORT_FORMS = [
    "models: [llmjobs/demo-base, {id: a/b}]",
    "models: [a/b]\neval: {benchmarks: [demo, {name: mmlu, subjects: stem}, {file: my.csv, question: q, answer: a}]}",
    "models: [a/b]\nmatrix: {devices: cpu, threads: [1, auto], benchmarks: demo}",
    "models: [a/b]\nmtbench: {history: off, judge: {endpoint: http://x/v1, model: big}, answers: [a.jsonl]}",
]
WRONG = ["models: a/b", "models: []", "modles: [a/b]", "models: [{id: a/b, quantization: 3bit}]", "models: [{name: a}]"]


@pytest.mark.parametrize("text", [*SHORT_FORMS, *(p.read_text() for p in sorted((ROOT / "manifests").glob("*.yaml")))])
def test_an_editor_marks_nothing_in_a_valid_manifest(load, text):
    load(text)
    jsonschema.validate(yaml.safe_load(text), json_schema())


@pytest.mark.parametrize("text", WRONG)
def test_an_editor_marks_what_is_wrong(load, text):
    with pytest.raises(ManifestError):
        load(text)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json_schema())
