"""GGUF on llama.cpp against transformers, a plain client of llama.cpp, and llama.cpp's own batches, in one process.

    python benchmarks/engines.py --data DIR             # DIR holds mmlu/{dev,test}/*.csv and hellaswag/
    python benchmarks/engines.py --data DIR --kinds F32 Q4_0 --questions 152 --naive 4

The model is a seeded random Llama of about 125 M (``--shape``). Each file is timed on

    questions/s      MMLU with 5 shots and without, letters as options, planning included
    prefill, decode  tokens per second of one row and of 16 rows, by the engine's ``measure_speed``

and beside it, on the same file with the same threads and without any code of llmjobs:

    naive            reset, the whole prompt, one option at a time, as clients of llama.cpp do
    evalution        Evalution's llama.cpp engine, if that package is installed (0.0.17 needs no GPU)
    own              ``llama_decode`` of one batch of prompts, then of one token a row, as llama-batched-bench does

The last line is JSON.
"""

import argparse
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scoring_data import Doc, encoder, mmlu_unit, train_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from gguf_models import quantize, write_llama  # noqa: E402 - the writer of the tests' GGUF files

from llmjobs.engines.llama_cpp.library import library  # noqa: E402
from llmjobs.engines.protocol import Engine, Extent, prefix_token_id  # noqa: E402
from llmjobs.engines.registry import open_model  # noqa: E402
from llmjobs.manifest import ModelSpec  # noqa: E402

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4},
    "125m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
}
KINDS = ("F32", "F16", "Q8_0", "Q4_K_M")
SUBJECT = "astronomy"
MAX_LENGTH, VOCABULARY = 2048, 32000
PROMPT, NEW, ROWS = 512, 32, 16
"""Tokens of a timed prompt of one row, and new tokens; with more rows, the prompt is shared among them."""


def main() -> None:
    """Time every contender, print a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="125m")
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="number formats of llama.cpp (default %(default)s)")
    parser.add_argument("--questions", type=int, default=48, help="with 5 shots and without (default %(default)s)")
    parser.add_argument("--naive", type=int, default=2, help="questions for the plain client (default %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=Path("build/engines"), help="keeps the model files")
    asked = parser.parse_args()
    began = time.monotonic()
    model, units = prepare(asked)
    files = [(kind, gguf(model, asked.folder / asked.shape, kind)) for kind in asked.kinds]
    print(f"prepared in {time.monotonic() - began:.0f} s; {asked.threads} threads", flush=True)
    lines = [measure("transformers float32", ModelSpec(id=str(model), device="cpu", dtype="float32"), units, asked)]
    for kind, path in files:
        line = measure(f"llama.cpp {kind}", ModelSpec(id=str(path), device="cpu"), units, asked)
        line |= bare(path, units, asked)
        show(line)
        lines.append(line)
    differing = compare(lines)
    seconds = round(time.monotonic() - began, 1)
    kept = [{key: value for key, value in line.items() if key != "scores"} for line in lines]
    print(json.dumps({"threads": asked.threads, "seconds": seconds, "answers_differ": differing, "lines": kept}))


def prepare(asked: argparse.Namespace) -> tuple[Path, dict[str, list[Doc]]]:
    """Make the model and its tokenizer, unless an earlier run did; encode the questions."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = asked.folder / asked.shape / "model"
    if not (folder / "model.safetensors").exists():
        import torch

        core = train_tokenizer(asked.data, VOCABULARY)
        fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")
        fast.save_pretrained(folder)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=core.get_vocab_size(), max_position_embeddings=MAX_LENGTH, **SHAPES[asked.shape]
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    from tokenizers import Tokenizer

    encode = encoder(Tokenizer.from_file(str(folder / "tokenizer.json")))
    units = {name: mmlu_unit(asked.data, SUBJECT, shots, asked.questions, encode) for name, shots in UNITS.items()}
    return folder, units


UNITS = {"5-shot": 5, "0-shot": 0}


def gguf(model: Path, folder: Path, kind: str) -> Path:
    """The model's GGUF file in a number format, made from the F32 one."""
    whole = folder / "model-F32.gguf"
    if not whole.exists():
        write_llama(model, whole)
    path = folder / f"model-{kind}.gguf"
    return path if path.exists() else quantize(whole, path, kind)


def measure(name: str, spec: ModelSpec, units: dict[str, list[Doc]], asked: argparse.Namespace) -> dict[str, Any]:
    """Questions per second, prefill and decode of one model on its engine."""
    began = time.monotonic()
    engine = open_model(spec, threads=asked.threads)
    line: dict[str, Any] = {"name": name, "load_s": round(time.monotonic() - began, 2), "scores": {}}
    for unit, docs in units.items():
        line[f"{unit} questions/s"], line["scores"][unit] = questions_per_s(engine, docs)
    one, many = (engine.measure_speed([PROMPT // rows], rows=rows, new_tokens=NEW, tries=2)[0] for rows in (1, ROWS))
    for rows, speed in ((1, one), (ROWS, many)):
        line[f"prefill {rows}"], line[f"decode {rows}"] = speed.prefill_tokens_per_s, speed.decode_tokens_per_s
    engine.close()
    show(line)
    return line


def questions_per_s(engine: Engine, docs: list[Doc]) -> tuple[float, list[list[float]]]:
    """Questions per second with planning, and the scores; what is tried before the first question is not counted."""
    scorer = engine.scorer()
    tokens = sum(len(doc[0].context) for doc in docs)
    scorer.probe(most_tokens=tokens)
    budget = scorer.batch_budget(Extent(tokens, tokens, 0))
    began = time.monotonic()
    plan = scorer.plan(
        docs,
        max_length=engine.max_length,
        batch_tokens=budget.batch_tokens,
        prefix_token_id=prefix_token_id(engine.tokenizer),
    )
    found: dict[int, list[float]] = {}
    for at, batch in enumerate(plan.batches):
        for doc, scores in zip(batch.docs, scorer.score_batch(plan, at), strict=True):
            found[doc] = [score.loglikelihood for score in scores]
    seconds = time.monotonic() - began
    scorer.close()
    return round(len(docs) / seconds, 3), [found[doc] for doc in range(len(docs))]


# llama.cpp alone, through its C API.


class Bare:
    """A context of llama.cpp with its default settings, and one batch that is used again and again."""

    def __init__(self, path: Path, threads: int, tokens: int, rows: int) -> None:
        self.api = library()
        self.model = self.api.llama_model_load_from_file(str(path).encode(), self.api.llama_model_default_params())
        parameters = self.api.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = tokens, tokens, 512
        parameters.n_seq_max, parameters.kv_unified, parameters.no_perf = rows, True, True
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = self.api.llama_init_from_model(self.model, parameters)
        self.memory = self.api.llama_get_memory(self.context)
        self.vocabulary = self.api.llama_vocab_n_tokens(self.api.llama_model_get_vocab(self.model))
        self.batch = self.api.llama_batch_init(tokens, 0, 1)

    def decode(self, rows: Sequence[Sequence[int]], first: int, wanted: int) -> None:
        """Compute the rows' tokens from position ``first`` on; logits of the last ``wanted`` of each."""
        at = 0
        for row, tokens in enumerate(rows):
            for place, token in enumerate(tokens):
                self.batch.token[at], self.batch.pos[at] = token, first + place
                self.batch.n_seq_id[at], self.batch.seq_id[at][0] = 1, row
                self.batch.logits[at] = place >= len(tokens) - wanted
                at += 1
        self.batch.n_tokens = at
        code = self.api.llama_decode(self.context, self.batch)
        assert code == 0, f"llama_decode: {code}"

    def logits(self, count: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """The logits that the last batch wanted [count, vocabulary]; waits for them."""
        found = self.api.llama_get_logits(self.context)
        return np.ctypeslib.as_array(ctypes.cast(found, ctypes.POINTER(ctypes.c_float)), (count, self.vocabulary))

    def clear(self) -> None:
        """Forget all tokens."""
        self.api.llama_memory_clear(self.memory, True)

    def close(self) -> None:
        """Free everything."""
        self.api.llama_batch_free(self.batch)
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)


def bare(path: Path, units: dict[str, list[Doc]], asked: argparse.Namespace) -> dict[str, Any]:
    """The plain client's questions per second, and llama.cpp's own rates."""
    line: dict[str, Any] = {}
    longest = max(len(one.context) + len(one.continuation) for docs in units.values() for doc in docs for one in doc)
    alone = Bare(path, asked.threads, longest + 1, 1)
    for unit, docs in units.items():
        count = asked.naive if unit == "5-shot" else 4 * asked.naive
        line[f"{unit} naive questions/s"], line[f"{unit} naive difference"] = naive(alone, docs[:count])
    alone.close()
    if find_spec("evalution"):
        for unit, docs in units.items():
            count = asked.naive if unit == "5-shot" else 4 * asked.naive
            line[f"{unit} evalution questions/s"] = evalution(path, docs[:count], longest + 1, asked.threads)
    for rows in (1, ROWS):
        together = Bare(path, asked.threads, PROMPT + rows * NEW, rows)
        line[f"own prefill {rows}"], line[f"own decode {rows}"] = own_rates(together, rows)
        together.close()
    return line


def naive(context: Bare, docs: list[Doc]) -> tuple[float, list[list[float]]]:
    """Score each option alone: forget everything, compute the whole prompt, read the option's log-probabilities."""
    began, found = time.monotonic(), []
    for doc in docs:
        scores = []
        for one in doc:
            context.clear()
            count = len(one.continuation)
            context.decode([[*one.context, *one.continuation[:-1]]], 0, count)
            logits = context.logits(count).astype(np.float64)
            logits -= logits.max(-1, keepdims=True)
            logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
            scores.append(float(sum(row[token] for row, token in zip(logits, one.continuation, strict=True))))
        found.append(scores)
    return round(len(docs) / (time.monotonic() - began), 4), found


def evalution(path: Path, docs: list[Doc], context: int, threads: int) -> float:
    """Questions per second of Evalution's llama.cpp engine, given the same tokens; loading is not counted."""
    from evalution.config import Model  # type: ignore[import-not-found]
    from evalution.engines.base import LoglikelihoodRequest  # type: ignore[import-not-found]
    from evalution.engines.llama_cpp_engine import LlamaCpp  # type: ignore[import-not-found]

    config = LlamaCpp(device="cpu", n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=True)
    session = config.build(Model(path=str(path)))
    requests = [
        LoglikelihoodRequest(context_input_ids=list(one.context), continuation_input_ids=list(one.continuation))
        for doc in docs
        for one in doc
    ]
    seconds = timed(lambda: session.loglikelihood(requests))
    session.close()
    return round(len(docs) / seconds, 4)


def own_rates(context: Bare, rows: int) -> tuple[float, float]:
    """Tokens per second of one batch of prompts, and of one token a row at a time; the better of two runs each."""
    prompts = [[(7 * at + row) % 1000 + 3 for at in range(PROMPT // rows)] for row in range(rows)]
    prefill, decode = [], []
    for _ in range(3):
        context.clear()
        prefill.append(timed(lambda: (context.decode(prompts, 0, 1), context.logits(rows).argmax(-1))))
        decode.append(timed(lambda: steps(context, rows, len(prompts[0]))))
    return round(PROMPT / min(prefill[1:]), 1), round(rows * (NEW - 1) / min(decode[1:]), 1)


def steps(context: Bare, rows: int, first: int) -> None:
    """Greedy tokens of every row, one after the other."""
    tokens = [3] * rows
    for at in range(NEW - 1):
        context.decode([[token] for token in tokens], first + at, 1)
        tokens = context.logits(rows).argmax(-1).tolist()


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# What is printed.


def compare(lines: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many answers differ from transformers', and the plain client's from ours as a difference in nats."""
    differing = {}
    for line in lines[1:]:
        pairs = [
            (ours, theirs)
            for unit in UNITS
            for ours, theirs in zip(line["scores"][unit], lines[0]["scores"][unit], strict=True)
        ]
        differing[line["name"]] = sum(int(np.argmax(a) != np.argmax(b)) for a, b in pairs)
    return differing


def show(line: dict[str, Any]) -> None:
    """Print a contender's figures; with llama.cpp's own beside them, the ratios."""
    for unit in UNITS:
        ours, plain = line[f"{unit} questions/s"], line.get(f"{unit} naive questions/s")
        if plain and isinstance(line[f"{unit} naive difference"], list):
            pairs = zip(line["scores"][unit], line[f"{unit} naive difference"], strict=False)
            line[f"{unit} naive difference"] = max(abs(a - b) for x, y in pairs for a, b in zip(x, y, strict=True))
            line[f"{unit} ratio"] = round(ours / plain, 1)
    print(f"\n{line['name']}")
    for unit in UNITS:
        text = f"  {unit}: {line[f'{unit} questions/s']:.2f} questions/s"
        if f"{unit} ratio" in line:
            text += f", naive {line[f'{unit} naive questions/s']:.2f}: {line[f'{unit} ratio']:.1f} times as fast"
        if theirs := line.get(f"{unit} evalution questions/s"):
            text += f", Evalution {theirs:.2f}: {line[f'{unit} questions/s'] / theirs:.1f} times as fast"
        print(text)
    for rows in (1, ROWS):
        for what in ("prefill", "decode"):
            ours, own = line[f"{what} {rows}"], line.get(f"own {what} {rows}")
            text = f"  {what} of {rows} rows: {ours:.0f} tokens/s"
            print(text + (f", llama.cpp's own {own:.0f}: {100 * ours / own:.0f} %" if own else ""), flush=True)


if __name__ == "__main__":
    main()
