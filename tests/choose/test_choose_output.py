"""The figure without overlaps, the files of --output, and the commands for the chosen candidate."""

import ast
import itertools
import json
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from llmjobs.choose.candidates import Candidate, Measured, SpeedAt
from llmjobs.choose.constraints import make_constraint
from llmjobs.choose.decide import Wish, decide
from llmjobs.choose.figure import draw
from llmjobs.choose.job import write
from llmjobs.choose.ready_to_run import commands
from llmjobs.choose.results import Found
from llmjobs.demo import DEMO_MODELS
from llmjobs.report.figure_style import lay_out, styled

GIB = 2.0**30
BITS = {"bf16": 16, "Q8_0": 8.5, "Q5_K_M": 5.7, "Q4_K_M": 4.8}
MODELS = {
    "Qwen2.5-0.5B-Instruct": (0.5, 0.3),
    "Qwen2.5-1.5B-Instruct": (1.5, 0.46),
    "Llama-3.2-3B-Instruct": (3.2, 0.55),
}


def twelve() -> list[Candidate]:
    """Three models at four precisions: three groups of points close together, as they are in practice."""
    rng = np.random.default_rng(1)
    shared, found = rng.random(2000), []
    for (model, (size, share)), (precision, bits) in itertools.product(MODELS.items(), BITS.items()):
        memory = size * 1e9 * bits / 8 + 0.4 * GIB
        answers = np.where(rng.random(2000) < 0.04, rng.random(2000) < share, shared < share).astype(float)
        speeds = (SpeedAt(256, Measured(30 * GIB / memory), Measured(0.4)),)
        found.append(
            Candidate(
                f"{model} {precision}", model, precision, "llama.cpp", id=f"Owner/{model}-GGUF:{precision}", bits=bits,
                answers={"mmlu": answers}, figures={"memory": Measured(memory)}, speeds=speeds,
            )
        )  # fmt: skip
    return found


def decided(number: int):
    limits = (make_constraint("memory", "4GiB"), make_constraint("decode", "8"))
    return decide(twelve()[-number:], Wish(limits, {"mmlu": 1.0}))


@pytest.mark.parametrize("number", [1, 3, 9, 12])
def test_no_label_of_the_figure_overlaps_another_or_leaves_it(number):
    with styled():
        plot = draw(decided(number))
        lay_out(plot)
        renderer = plot.canvas.get_renderer()
        texts = [text for axes in plot.axes for text in axes.texts if text.get_text()]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    frame = plot.bbox
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), (one, other)
    for text, box in boxes:
        assert box.x0 >= frame.x0 - 1 and box.x1 <= frame.x1 + 1, text
    numbers = [text for text, _ in boxes if re.fullmatch(r"\d+", text)]
    assert sorted(map(int, numbers)) == sorted([*range(1, number + 1)] * 3)  # in both panels and in the key


def test_limits_are_shaded_on_the_side_that_is_ruled_out():
    with styled():
        memory, decode = draw(decided(12)).axes[:2]
    spans = [
        [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
        for axes in (memory, decode)
    ]
    ((above,), (below,)) = spans
    assert above.x0 == pytest.approx(4) and above.x1 == pytest.approx(memory.get_xlim()[1])
    assert below.x0 == pytest.approx(0) and below.x1 == pytest.approx(8)


def test_the_files_of_output(tmp_path):
    decision = decided(12)
    found = Found(decision.judged, decision.wish.benchmarks, ("a note with | and <tag>",), "Example CPU", False)
    made = commands(decision.winner.candidate, 4096)
    files = write(tmp_path / "out", decision, found, made)
    assert [file.name for file in files] == ["choice.pdf", "choice.json", "choice.md", "choice.pdf", "choice.png"]
    text = (tmp_path / "out" / "choice.md").read_text()
    assert "![Accuracy on mmlu" in text and "a note with \\| and \\<tag\\>" in text and "--ctx-size 4096" in text
    assert json.loads((tmp_path / "out" / "choice.json").read_text())["chosen"] == decision.winner.label
    again = write(tmp_path / "again" / "named.pdf", decision, found, made)
    assert [file.name for file in again][:3] == ["named.pdf", "named.json", "named.md"]
    assert again[0].read_bytes() == files[0].read_bytes()


def test_no_winner_still_writes_its_answer(tmp_path):
    decision = decide(twelve(), Wish((make_constraint("memory", "1MiB"),), {"mmlu": 1.0}))
    write(tmp_path, decision, Found(decision.judged, {}, (), "", False), ())
    assert "No candidate meets the constraints" in (tmp_path / "choice.md").read_text()


def test_commands_by_engine(tmp_path):
    def of(**settings):
        return dict(commands(Candidate("m", "m", **settings), 8192))

    found = of(engine="llama.cpp", id="Owner/M-GGUF:Q4_K_M", precision="Q4_K_M", gpu_layers="12")
    assert found["llama.cpp's server"] == "llama-server -hf Owner/M-GGUF:Q4_K_M --ctx-size 8192 --n-gpu-layers 12"
    (modelfile,) = (text for title, text in found.items() if title.startswith("Ollama"))
    assert modelfile == "FROM hf.co/Owner/M-GGUF:Q4_K_M\nPARAMETER num_ctx 8192\nPARAMETER num_gpu 12"
    file = tmp_path / "my models" / "m-Q8_0.gguf"
    file.parent.mkdir()
    file.touch()
    for name in (str(file), f"{file.parent}:q8_0"):
        found = of(engine="llama.cpp", id=name)
        assert found["llama.cpp's server"] == f"llama-server -m '{file}' --ctx-size 8192"
    assert of(engine="llama.cpp", id="ollama:llama3.2")["Ollama"] == "ollama run llama3.2"
    found = of(engine="vllm", id="Owner/M", revision="a" * 40, dtype="bfloat16")
    assert found["vLLM's server"] == (f"vllm serve Owner/M --revision {'a' * 40} --dtype bfloat16 --max-model-len 8192")
    assert of(engine="endpoint", id="m") == {"Chat through its server": "llmjobs chat --endpoint URL --model m"}
    assert of(id="m") == {}  # a log that names no engine


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit", "int8"])
def test_the_program_for_transformers_parses_and_names_what_there_is(quantization):
    one = Candidate("m", "m", engine="transformers", id="Owner/M", dtype="bfloat16", quantization=quantization)
    program = dict(commands(one))["From Python with transformers"]
    imported = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.ImportFrom)]
    for node in imported:
        if find_spec(node.module.partition(".")[0]):
            module = __import__(node.module, fromlist=["x"])
            assert all(hasattr(module, alias.name) for alias in node.names)
    assert ("quantization_config" in program) == (quantization != "none")


@pytest.mark.slow
def test_the_program_for_transformers_runs_the_demo_model(capsys):
    one = Candidate("m", "m", engine="transformers", id="llmjobs/demo-base", dtype="float32", device="cpu")
    program = dict(commands(one))["From Python with transformers"]
    assert str(DEMO_MODELS["demo-base"]) in program
    exec(compile(program, "program", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_the_chat_command_is_accepted_and_answers(tmp_path):
    one = Candidate(
        "m", "m", engine="transformers", id="llmjobs/demo-base", dtype="float32", quantization="none", device="cpu"
    )
    command = dict(commands(one, 512))["Chat in the terminal"]
    parts = shlex.split(command)
    assert parts[:3] == ["llmjobs", "chat", "llmjobs/demo-base"]
    run = subprocess.run(
        [sys.executable, "-m", *parts, "--once", "hello", "--results", str(tmp_path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    assert Path(tmp_path, "chat").is_dir()


def test_vllm_accepts_the_command():
    arguments = pytest.importorskip("vllm.entrypoints.launchers.cli_args", reason="vLLM is not installed here")
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    one = Candidate("m", "m", engine="vllm", id="Owner/M", revision="a" * 40, dtype="bfloat16")
    words = shlex.split(dict(commands(one, 8192))["vLLM's server"])
    assert words[:2] == ["vllm", "serve"]
    read = arguments.make_arg_parser(FlexibleArgumentParser()).parse_args(words[2:])
    assert (read.model_tag, read.revision, read.dtype, read.max_model_len) == ("Owner/M", "a" * 40, "bfloat16", 8192)
