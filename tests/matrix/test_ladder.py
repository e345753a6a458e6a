"""The ladder: precisions and engines side by side, each compared with the reference precision."""

import json
from pathlib import Path

import pytest
import yaml
from matrix_stand_in import ended, probe, result_of

from llmjobs.cli import main
from llmjobs.cluster import local_or_cluster
from llmjobs.engines import machine_probe
from llmjobs.engines.registry import why_unavailable
from llmjobs.errors import ManifestError
from llmjobs.fetch import walk
from llmjobs.manifest import ModelSpec, load_manifest
from llmjobs.manifest.matrix import gguf_models, precision_of
from llmjobs.matrix import job as matrix_job
from llmjobs.matrix.cells import make_cells
from llmjobs.matrix.ladder import Ladder
from llmjobs.prepare.plan import _planned
from llmjobs.records import CellResult
from llmjobs.report.read.run_folder import read_run_folder
from llmjobs.statistics.paired import holm, mcnemar_exact

WRONG = {"float32": 0, "bfloat16": 1, "8bit": 2, "4bit": 6, "Q8_0": 1, "Q4_K_M": 8}
"""How many of ten answers each precision has wrong."""
PRECISIONS = ["fp32", "bf16", "8bit", "nf4", "gguf:Q8_0", "gguf:Q4_K_M"]


@pytest.fixture
def manifest(tmp_path):
    """Write a manifest of one model with its GGUF files beside it, and return its path."""

    def write(model=None, **section) -> Path:
        demo = {"name": "demo", "subjects": ["number_size"], "limit": 10}
        content = {
            "models": [{"id": "llmjobs/demo-base", "name": "tiny", "gguf": "./files/tiny-*.gguf"} | (model or {})],
            "matrix": {"benchmarks": [demo], "repetitions": 1, "context_lengths": [32], "devices": "cpu"}
            | {"precisions": PRECISIONS}
            | section,
        }
        path = tmp_path / "ladder.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder of GGUF files; what is in them is not read here."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("Q8_0", "Q4_K_M"):
        (folder / f"tiny-{name}.gguf").write_bytes(name.encode())
    return folder


@pytest.fixture
def played(monkeypatch) -> list[dict]:
    """Cells that are played; returns the models that they were started with."""
    started = []

    def run_child(_module, task, **_):
        model = task["model"]
        started.append(model)
        key = model["quantization"] if model["quantization"] != "none" else model["dtype"]
        key = Path(model["id"]).stem.removeprefix("tiny-") if model["id"].endswith(".gguf") else key
        found = result_of(task | {"model": model | {"quantization": "none"}})
        for n, record in enumerate(found["records"]):
            right = n >= WRONG[key]
            record |= {"prediction": "A" if right else "B", "correct": right}
        found["model"]["engine"] = "llama.cpp" if model["id"].endswith(".gguf") else "transformers"
        found["file_bytes"] = 1 << 20
        return ended({"phase": "questions"}, {"result": found})

    monkeypatch.setattr(matrix_job, "run_child", run_child)
    monkeypatch.setattr(matrix_job, "probe_machine", probe)
    monkeypatch.setattr(local_or_cluster, "probe_machine", probe)
    return started


def run(*arguments, expect=0) -> None:
    with pytest.raises(SystemExit) as done:
        main(["matrix", *map(str, arguments)])
    assert done.value.code == expect


def test_each_precision_is_an_engine_a_format_a_quantization_and_a_file(manifest, files):
    cells = make_cells(load_manifest(manifest()))
    assert [(c.row, c.model.dtype, c.model.quantization, c.model.engine) for c in cells] == [
        ("CPU fp32", "float32", "none", "auto"),
        ("CPU bf16", "bfloat16", "none", "auto"),
        ("CPU 8-bit", "auto", "8bit", "auto"),
        ("CPU NF4", "auto", "4bit", "auto"),
        ("CPU GGUF Q8_0", "auto", "none", "llama.cpp"),
        ("CPU GGUF Q4_K_M", "auto", "none", "llama.cpp"),
    ]
    assert cells[4].model.id == str(files / "tiny-Q8_0.gguf")
    assert [c.name for c in cells][3:5] == ["tiny.cpu-nf4", "tiny.cpu-gguf-Q8_0"]
    assert [c.is_reference for c in cells] == [True, *[False] * 5]
    assert cells[3].layer == ("cpu", "auto", "4bit") and cells[4].layer == ("cpu", "auto", "llama.cpp")


@pytest.mark.parametrize(
    ("gguf", "wanted"),
    [
        ("OWNER/NAME-GGUF", "OWNER/NAME-GGUF:Q4_K_M"),
        ("/models/a-*.gguf", "/models/a-Q4_K_M.gguf"),
        ("ollama:llama3.2:1b-*", "ollama:llama3.2:1b-Q4_K_M"),
    ],
)
def test_where_a_file_is_found(gguf, wanted):
    model = ModelSpec.model_validate({"id": "OWNER/NAME", "gguf": gguf})
    assert [one.id for one in gguf_models([model], [precision_of("gguf:Q4_K_M"), precision_of("bf16")])] == [wanted]


def test_a_folder_of_files(files):
    from llmjobs.engines.registry import local_path

    model = ModelSpec.model_validate({"id": "llmjobs/demo-base", "gguf": str(files)})
    (spec,) = gguf_models([model], [precision_of("gguf:q8_0")])
    assert local_path(spec) == files / "tiny-Q8_0.gguf"


def test_the_ladder(manifest, files, played, tmp_path, capsys):
    run(manifest(), "--results", tmp_path / "r")
    shown = capsys.readouterr().out
    assert {model["id"] for model in played} == {
        "llmjobs/demo-base", *(str(files / f"tiny-{name}.gguf") for name in ("Q8_0", "Q4_K_M"))
    }  # fmt: skip
    read = Ladder.of(read_run_folder(tmp_path / "r" / "ladder").cells).rungs
    changed = {rung.cell.precision: rung.flips and rung.flips.changed for rung in read}
    assert changed == {"fp32": None, "bf16": 1, "8bit": 2, "nf4": 6, "gguf:Q8_0": 1, "gguf:Q4_K_M": 8}
    by_name = {rung.cell.precision: rung for rung in read}
    order = [name for name in sorted(changed, key=lambda name: by_name[name].cell.cell) if changed[name]]
    adjusted = holm([mcnemar_exact(0, changed[name]) for name in order])
    assert {name: by_name[name].p_holm for name in order} == pytest.approx(dict(zip(order, adjusted, strict=True)))
    assert by_name["gguf:Q8_0"].cell.engine == "llama.cpp"
    assert by_name["gguf:Q8_0"].cell.value("file_bytes") == 1 << 20
    assert by_name["nf4"].together.low < by_name["nf4"].flips.result.low
    assert "CPU GGUF Q4_K_M" in shown and "8 of 10" in shown
    assert "changed: answers that differ from CPU fp32" in shown


def test_another_reference(manifest, files, played, tmp_path, capsys):
    run(manifest(reference="gguf:Q8_0"), "--results", tmp_path / "r")
    cells = Ladder.of(read_run_folder(tmp_path / "r" / "ladder").cells).rungs
    assert {rung.flips.against.precision for rung in cells if rung.flips} == {"gguf:Q8_0"}
    assert next(rung for rung in cells if rung.cell.precision == "gguf:Q8_0").flips is None
    assert "answers that differ from CPU GGUF Q8_0" in capsys.readouterr().out


def test_a_model_without_a_file_has_the_reason_in_its_row(manifest, files, played, tmp_path, capsys):
    path = manifest()
    content = yaml.safe_load(path.read_text())
    content["models"].append({"id": "llmjobs/demo-tiny", "name": "other"})
    path.write_text(yaml.safe_dump(content))
    run(path, "--results", tmp_path / "r")
    found = json.loads((tmp_path / "r" / "ladder" / "matrix" / "other.cpu-gguf-Q8_0" / "cell.json").read_text())
    assert found["status"] == "unavailable" and "add gguf: to the model" in found["reason"]
    assert "other CPU GGUF Q8_0: unavailable: no GGUF file is known for llmjobs/demo-tiny" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "section", "says"),
    [
        ({"gguf": None}, {}, "gguf:Q8_0 needs the model's GGUF files"),
        ({}, {"precisions": ["bf17"]}, "did you mean"),
        ({}, {"precisions": ["nf4", "4bit"]}, "nf4 and 4bit are the same"),
        ({}, {"precisions": ["gguf:Q8_0", "gguf:q8_0"]}, "are the same"),
        ({}, {"quantizations": ["none"]}, "takes the place of quantizations and dtypes"),
        ({}, {"reference": "int8"}, "reference: int8 is not one of precisions"),
    ],
)
def test_what_the_section_refuses(manifest, model, section, says):
    with pytest.raises(ManifestError, match="ladder.yaml") as caught:
        load_manifest(manifest(model, **section))
    assert says in str(caught.value)


def test_an_engine_that_is_missing_is_the_reason_and_not_a_failure(monkeypatch):
    """Its layer is asked of the engine itself, not of torch."""
    monkeypatch.setattr(
        machine_probe, "run_child", lambda *_, **__: ended({"devices": {"cpu": {}}}, {"result": {"torch": "2"}})
    )
    monkeypatch.setattr(machine_probe, "why_unavailable", lambda name, device: f"{name} is not installed")
    found = machine_probe.probe_machine([("cpu", "auto", "llama.cpp")])
    assert found.layers["cpu", "auto", "llama.cpp"] == machine_probe.Verdict(False, "llama.cpp is not installed")
    assert why_unavailable("transformers", "cpu") is None


def test_plan_and_fetch_know_the_files(manifest, files):
    study = load_manifest(manifest())
    names = [model.name for model in _planned(study, study.models)]
    assert names == [f"tiny {name}" for name in PRECISIONS]
    assert len(list(walk(study, ModelSpec))) == 1
    assert [spec.id for spec in gguf_models(study.models, study.matrix.rungs)] == [
        str(files / f"tiny-{name}.gguf") for name in ("Q8_0", "Q4_K_M")
    ]


def test_a_cell_of_an_older_run_has_no_precision():
    old = {"row": "CPU none", "cell": "a.cpu-none", "model": "a", "device": "cpu", "quantization": "none"}
    found = CellResult.from_json(old, "a.cpu-none", ())
    assert (found.precision, found.is_reference, found.engine) == (None, False, "transformers")
    assert "precision" not in found.to_json()
