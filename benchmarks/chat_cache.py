#!/usr/bin/env python3
"""Time to first token as a conversation grows: keys and values kept over turns, against full recomputation.

A conversation of short messages (about ten tokens) with answers of a fixed length is held twice on the same model, turn
by turn in alternation, greedily in float32: once with the cache kept, once with every prompt computed whole. Printed
for each turn: tokens of the prompt, and seconds from the question to the first token (median over repetitions; the
chat template and the tokenizer are part of it). The last line is JSON: ``ratio_kept`` and ``ratio_whole`` are turn 20
over turn 2, ``answers_differ`` counts answers that are not the same both ways.

    python benchmarks/chat_cache.py                   a random Llama of about 25 M parameters, the demo's tokenizer
    python benchmarks/chat_cache.py --model HUB_ID    another model
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch

from llmjobs.chat.agent import Agent
from llmjobs.chat.backend import Sampling
from llmjobs.chat.local_backend import LocalBackend
from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.registry import open_model
from llmjobs.engines.transformers.device import set_threads
from llmjobs.errors import LlmjobsError
from llmjobs.manifest import ModelSpec

EARLY, LATE = 2, 20
MESSAGE = "My friend number {} lives in Rome."


def random_model(folder: Path) -> str:
    """Write a random Llama with the demo's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODELS["demo-base"])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.all_special_ids] = 0.0  # never the likeliest: every answer has its full length
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def hold(model: str, turns: int, new_tokens: int, repetitions: int) -> dict[str, object]:
    """Hold the conversation both ways; returns the figures."""
    spec = ModelSpec(id=model, name="model", dtype="float32")
    threads = torch.get_num_threads()
    ways = {
        name: LocalBackend(open_model(spec, threads=threads), keeps_keys=name == "kept") for name in ("kept", "whole")
    }
    times: dict[str, list[list[float]]] = {name: [[] for _ in range(turns)] for name in ways}
    tokens, differ = [0] * turns, 0
    for repetition in range(repetitions + 1):
        agents = {name: Agent(backend, sampling=Sampling(new_tokens)) for name, backend in ways.items()}
        for turn in range(turns):
            replies = {name: agent.ask(MESSAGE.format(turn + 1)) for name, agent in agents.items()}
            differ += replies["kept"].text != replies["whole"].text
            tokens[turn] = replies["kept"].prompt_tokens
            if repetition:  # the first one warms up
                for name, reply in replies.items():
                    times[name][turn].append(reply.ttft_s)
    firsts = {name: [median(values) for values in rows] for name, rows in times.items()}
    return {"tokens": tokens, "ttft_s": firsts, "answers_differ": differ}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", help="hub id or folder; a random model when not given")
    parser.add_argument("--turns", type=int, default=LATE)
    parser.add_argument("--new-tokens", type=int, default=24, help="longest answer")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, help="CPU threads; the physical cores when not given")
    options = parser.parse_args()
    set_threads(options.threads or "auto")
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or random_model(Path(folder))
        found = hold(model, max(options.turns, LATE), options.new_tokens, options.repetitions)
    tokens, firsts = found["tokens"], found["ttft_s"]
    assert isinstance(tokens, list) and isinstance(firsts, dict)
    print(f"{'turn':>4} {'prompt':>7} {'kept':>9} {'whole':>9}")
    for turn, count in enumerate(tokens):
        print(f"{turn + 1:>4} {count:>7,} {firsts['kept'][turn]:>7.4f} s {firsts['whole'][turn]:>7.4f} s")
    ratios = {f"ratio_{name}": round(rows[LATE - 1] / rows[EARLY - 1], 3) for name, rows in firsts.items()}
    print(json.dumps({**ratios, "turns": [EARLY, LATE], "answers_differ": found["answers_differ"]}))


if __name__ == "__main__":
    try:
        main()
    except LlmjobsError as error:
        sys.exit(f"chat_cache: {error}")
