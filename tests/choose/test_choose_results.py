"""Candidates from real run folders, from matrix folders beside them, and from tables; and what cannot be read."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from llmjobs.choose.results import family, find_candidates, precision_name
from llmjobs.cli import main
from llmjobs.errors import DataError
from llmjobs.records import CellResult, Spread

SUBJECTS = ("far_country", "number_size")


def run(*arguments: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    assert ended.value.code == code


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real eval of two models, 40 questions each."""
    place = tmp_path_factory.mktemp("results")
    (place / "small.yaml").write_text(
        "models: [{id: llmjobs/demo-base, dtype: float32}, {id: llmjobs/demo-tiny, dtype: float32}]\n"
        f"eval: {{benchmarks: [{{name: demo, subjects: [{', '.join(SUBJECTS)}], limit: 20}}], threads: 1}}\n"
    )
    run("eval", place / "small.yaml", "--results", place)
    return place / "small"


def write_cell(real: Path, place: Path, *, quantization: str = "none", decode: float = 20.0, wrong: int = 0, **changes):
    """Write a matrix folder with one cell of demo-base on the machine of the eval; ``wrong`` answers are changed."""
    folder = place / "matrix" / f"demo-base.cpu-{quantization}"
    folder.mkdir(parents=True)
    for name in ("environment.json", "manifest.yaml"):
        shutil.copy(real / name, place / name)
    (place / "summary.json").write_text("{}")
    shutil.copytree(real / "docs", place / "docs", dirs_exist_ok=True)
    model = json.loads((real / "eval" / "demo-base" / "model.json").read_text())
    lines, asked = [], {}
    for subject in SUBJECTS:
        unit = real / "eval" / "demo-base" / f"demo.{subject}"
        lines += [json.loads(line) for line in (unit / "records.jsonl").read_text().splitlines()]
        asked[f"demo.{subject}"] = json.loads((unit / "unit.json").read_text())["fingerprint"]
    for line in [line for line in lines if line["correct"]][:wrong]:
        line |= {"correct": False, "prediction": "D" if line["gold"] != "D" else "C"}
        line["metrics"] = dict.fromkeys(line["metrics"], 0)
    records = [{"cell": folder.name, "repetition": 1, **line} for line in lines]
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    speed = {"context_tokens": 256, "ttft_s": 0.2, "decode_tokens_per_s": decode, "reason": None}
    cell = CellResult(
        row="CPU", cell=folder.name, model="demo-base", device="cpu", quantization=quantization, dtype="float32",
        threads=1, batch_size=1, status="done", repetitions=1, parameters=model["parameters"],
        revision=model["revision"], by_context=[speed],
        measures={"needed_bytes": Spread(3e8, 3e8, 3e8), "weight_bytes": Spread(1e6, 1e6, 1e6)},
    )  # fmt: skip
    cell = replace(cell, **changes)
    unit = {"fingerprint": {"model": model["id"], "questions": asked}, "effective": {"engine": "transformers"}}
    (folder / "unit.json").write_text(json.dumps(unit))
    (folder / "cell.json").write_text(json.dumps(cell.to_json()))
    return place


def test_speed_from_the_matrix_joins_accuracy_from_the_eval(real, tmp_path):
    found = find_candidates([real, write_cell(real, tmp_path / "speed", wrong=3)])
    base, tiny = found.candidates
    assert (base.label, tiny.label) == ("demo-base fp32", "demo-tiny fp32")
    assert base.speeds[0].decode.value == 20.0 and base.figures["memory"].value == 3e8
    assert base.figures["memory"].context == 256 and base.figures["context"].value == 2048
    assert base.sources == ("small/eval/demo-base", "speed/matrix/demo-base.cpu-none")
    assert tiny.speeds == () and "memory" in tiny.figures
    summary = json.loads((real / "summary.json").read_text())["eval"]["models"]
    known = {line["model"]: line["benchmarks"][0]["correct"] for line in summary}
    # of two sources of the same answers, the eval is taken, not the cell with three wrong ones
    assert {one.model: int(one.answers["demo"].sum()) for one in found.candidates} == known


def test_a_precision_that_only_the_matrix_has_is_compared_on_the_same_questions(real, tmp_path, capsys):
    cell = write_cell(real, tmp_path / "speed", quantization="8bit", wrong=4)
    base, tiny, eight = find_candidates([real, cell]).candidates
    assert (eight.precision, eight.model) == ("8-bit", "demo-base") and eight.bits < base.bits
    assert base.answers["demo"].sum() - eight.answers["demo"].sum() == 4
    run("choose", real, cell, "--lose", "2", "--json", code=0)
    shown = json.loads(capsys.readouterr().out)
    one = next(one for one in shown["candidates"] if one["candidate"] == eight.label)
    assert one["loss"]["reference"] == base.label and one["loss"]["value"] == pytest.approx(0.1)
    assert one["outcome"] == "not judged"  # 4 of 40 lost: 10 points, but the interval reaches below 2
    assert "questions would probably decide it" in one["reasons"][0]


def test_other_weights_are_another_candidate(real, tmp_path):
    cell = write_cell(real, tmp_path / "speed", revision=f"sha256:{'0' * 64}")
    assert [one.speeds != () for one in find_candidates([real, cell]).candidates] == [False, False, True]


def test_figures_of_two_machines_are_never_mixed(real, tmp_path, capsys):
    cell = write_cell(real, tmp_path / "speed")
    environment = json.loads((cell / "environment.json").read_text())
    environment["machine"] |= {"cpu": "Example CPU 3000"}
    (cell / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(DataError, match=r"from 2 machines .*Example CPU 3000.*choose one with --machine"):
        find_candidates([real, cell])
    found = find_candidates([real, cell], machine="example cpu")
    (only,) = found.candidates
    assert only.speeds and only.machine.startswith("Example CPU 3000")
    assert any(note.startswith("left out, because measured on another machine") for note in found.notices)
    with pytest.raises(DataError, match="--machine Laptop: fits no machine"):
        find_candidates([real, cell], machine="Laptop")


def test_a_cell_that_did_not_run_is_ruled_out_with_its_reason(real, tmp_path, capsys):
    cell = write_cell(real, tmp_path / "speed", quantization="4bit")
    file = cell / "matrix" / "demo-base.cpu-4bit" / "cell.json"
    state = {"status": "killed", "reason": "killed for lack of memory twice", "repetitions": 0, "measures": {}}
    file.write_text(json.dumps(json.loads(file.read_text()) | state))
    (file.parent / "records.jsonl").unlink()
    run("choose", real, cell)
    assert "demo-base NF4 did not run: killed for lack of memory twice" in capsys.readouterr().out


def test_cells_with_other_threads_are_candidates_of_their_own(real, tmp_path):
    one, two = write_cell(real, tmp_path / "one"), write_cell(real, tmp_path / "two", threads=2, decode=31.0)
    found = find_candidates([real, one, two]).candidates
    assert [(c.label, c.speeds[0].decode.value) for c in found if c.speeds] == [
        ("demo-base fp32 (threads 1)", 20.0), ("demo-base fp32 (threads 2)", 31.0)
    ]  # fmt: skip


def test_the_answer_on_the_terminal(real, tmp_path, capsys):
    run("choose", real, write_cell(real, tmp_path / "speed"), "--decode", "10")
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("Run demo-base as fp32 with transformers: ") and "20.0 tokens/s, 286 MiB." in out[0]
    assert out[1] == "It is the only candidate that is known to meet the constraints."
    assert "- demo-tiny fp32: decode speed was not measured; llmjobs matrix measures it" in out


def test_nothing_meets_the_constraints(real, capsys):
    run("choose", real, "--memory", "1MiB", code=4)
    out = capsys.readouterr().out
    assert out.startswith("No candidate meets the constraints (at most 1.00 MiB of memory).\nThe nearest: demo-")
    assert "MiB more than 1.00 MiB" in out
    run("choose", real, "--decode", "10", code=4)
    assert capsys.readouterr().out.startswith("No candidate is known to meet the constraints (at least 10.0 tokens/s).")


def test_one_candidate_only(real, capsys):
    run("choose", real, "--where", "model=demo-tiny")
    assert capsys.readouterr().out.splitlines()[1] == "It is the only candidate."


def table(place: Path, *rows: str, head: str = "model,device,quantization,doc_id,gold,prediction") -> Path:
    place.write_text("\n".join([head, *rows]) + "\n")
    return place


def test_costs_from_a_table(tmp_path, capsys):
    log = table(
        tmp_path / "quiz.csv",
        *(f"big,{device},none,{n},A,{'A' if n % 3 else 'B'}" for device in ("cpu", "cuda") for n in range(30)),
        *(f"small,cpu,none,{n},A,{'A' if n % 2 else 'B'}" for n in range(30)),
    )
    costs = table(tmp_path / "c.csv", "big,2GiB", head="model,memory")
    with pytest.raises(DataError, match=r"c.csv: row 2: big may be big, unquantized cuda|c.csv: row 2: big may be"):
        find_candidates([log], costs=costs)
    table(costs, "big,cuda,2GiB,30", "small,,1GiB,", "huge,,9GiB,", head="model,device,memory,decode")
    found = find_candidates([log], costs=costs)
    held = {(one.model, one.device): {k: m.value for k, m in one.figures.items()} for one in found.candidates}
    assert held == {
        ("big", "cuda"): {"memory": 2 * 2**30, "decode": 30}, ("big", "cpu"): {}, ("small", "cpu"): {"memory": 2**30}
    }  # fmt: skip
    assert "c.csv: row 4: huge is none of these candidates" in found.notices


@pytest.mark.parametrize(
    ("rows", "head", "line"),
    [
        (["small,-1GiB"], "model,memory", "c.csv: row 2, column memory: must be more than 0"),
        (["small,1"], "model,memory", "c.csv: row 2, column memory: expected a number with one of b, kb"),
        (
            ["small,1"],
            "model,price",
            "c.csv: a table of costs needs a first row with a column 'model' and at least one",
        ),
        (
            ["small,1GiB", "small,2GiB"],
            "model,memory",
            "c.csv: row 3: small unquantized has another row above; keep one",
        ),
    ],
)
def test_a_table_of_costs_that_cannot_be_read(rows, head, line, tmp_path):
    log = table(tmp_path / "quiz.csv", *(f"small,cpu,none,{n},A,A" for n in range(5)))
    with pytest.raises(DataError) as said:
        find_candidates([log], costs=table(tmp_path / "c.csv", *rows, head=head))
    assert line in str(said.value)


def test_what_is_measured_is_not_replaced_by_a_table(real, tmp_path):
    costs = table(tmp_path / "c.csv", "demo-tiny,1TiB,7", head="model,memory,decode")
    found = find_candidates([real], costs=costs)
    tiny = found.candidates[1]
    assert tiny.figures["memory"].value < 2**30 and tiny.figures["decode"].value == 7 and tiny.figures["decode"].given
    assert any("memory of demo-tiny fp32 was measured; the table's is not used" in note for note in found.notices)


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["nowhere"], 1, "nowhere: no such file or folder"),
        (["small", "--benchmarks", "mmlu"], 1, "--benchmarks: 'mmlu' is not one of demo"),
        (["small", "--memory", "4"], 2, "--memory 4: expected a number with one of b, kb"),
        (["small", "--memory", "-4GiB"], 2, "--memory -4GiB: must be more than 0"),
        (["small", "--lose", "-1"], 2, "--lose -1: must be more than 0"),
        (["small", "--margin", "0"], 2, "0.0 is not in the range 0<x<=100"),
        (["small", "--prefer", "price"], 2, "'price' is not one of 'accuracy'"),
        (["small", "--where", "model"], 2, "'model' is not COLUMN=VALUE"),
        (["small", "--costs", "none.csv"], 1, "none.csv: no such file; --costs takes a CSV"),
        (["talk"], 1, "no accuracy to decide by"),
        (["apart.csv"], 1, "no question"),
        ([], 2, "Missing argument 'RESULTS...'"),
    ],
)
def test_bad_input_is_one_line(real, options, code, line, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").symlink_to(real)
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk" / "manifest.yaml").write_text("name: talk\n")  # a run without an eval
    table(tmp_path / "apart.csv", "one,cpu,none,1,A,A", "two,cpu,none,2,A,A")
    run("choose", *options, code=code)
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("Qwen/Qwen2.5-1.5B-Instruct", "Qwen2.5-1.5B-Instruct"),
        ("Qwen/Qwen2.5-1.5B-Instruct-GGUF:Q4_K_M", "Qwen2.5-1.5B-Instruct"),
        ("/models/qwen2.5-1.5b-instruct-q5_k_m.gguf", "qwen2.5-1.5b-instruct"),
        ("TheBloke/Llama-2-7B-GPTQ", "Llama-2-7B"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen2.5-7B-Instruct"),
        ("meta-llama/Llama-3.2-1B", "Llama-3.2-1B"),
        ("microsoft/phi-2", "phi-2"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "Meta-Llama-3.1-8B-Instruct-quantized"),
        ("Q4_K_M.gguf", "Q4_K_M"),
    ],
)
def test_forms_of_one_model_have_one_name(name, model):
    assert family(name) == model


def test_names_of_precisions():
    assert precision_name("float32", "none", None, "m") == "fp32"
    assert precision_name("bfloat16", "8bit", None, "m") == "8-bit"
    assert precision_name("float32", "Q4_K 80%, Q6_K 20%", "gguf:Q4_K_M", "m") == "Q4_K_M"
    assert precision_name("float32", "Q4_K 80%, Q6_K 20%", None, "o/m-GGUF:q4_k_m") == "Q4_K_M"
    assert precision_name("float32", "Q4_K 80%, Q6_K 20%", None, "/x/m-Q4_K_M.gguf") == "Q4_K_M"
    assert precision_name("", "", None, "m") == ""
