"""Trains the demo models (docs/demo.md). Seeded; a killed training resumes at its last checkpoint.

A step's rows depend on the model's name and the step alone, so nothing but weights and optimizer has to be kept.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from demo_training.build import MAX_LENGTH
from demo_training.build import main as build
from demo_training.lessons import Row, Teacher
from demo_training.measure import accuracy, recall, recall_cases
from demo_training.rules import RULES
from demo_training.tokenizer import BOS, END, EOS, PAD, token_id
from demo_training.world import draw_distinct
from llmjobs.demo import DEMO_MODELS, LEFT_OUT

HEADS = 4
WARMUP_STEPS = 200
TOKENS_PER_STEP = 2048
LOG_STEPS = 500
VALIDATION_SEED = 7
DISTANCES = (1, 4, 8, 16, 30)


@dataclass(frozen=True)
class Stage:
    """A part of the training, up to a step: the share of each kind of rows, and how they are made.

    `length` is a row's in tokens, `exchanges` the longest conversation's, `words_share` the share of
    multiple-choice questions answered in words, `rate` the learning rate at its begin and end as a share of the
    recipe's.
    """

    until: int
    questions: float
    copies: float
    chats: float
    words_share: float = 0.0
    length: int = 256
    exchanges: int = 0
    rate: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Recipe:
    """One model: its size, its stages, and the model whose weights and steps it begins with."""

    hidden: int
    layers: int
    inner: int
    stages: tuple[Stage, ...]
    learning_rate: float = 1e-3
    begins_with: str | None = None

    @property
    def steps(self) -> int:
        """How many steps all stages take."""
        return self.stages[-1].until


NARROW_STAGES = (
    Stage(1500, 0.8, 0.2, 0.0),
    Stage(2000, 0.95, 0.05, 0.0),
    Stage(4000, 0.95, 0.05, 0.0, words_share=0.5),
    Stage(4225, 1.0, 0.0, 0.0, words_share=0.15),
    Stage(6500, 1.0, 0.0, 0.0, words_share=0.15, rate=(1.0, 0.02)),
)
BASE_STAGES = (
    Stage(8500, 0.5, 0.05, 0.45, words_share=0.15, exchanges=12),
    Stage(10500, 0.5, 0.03, 0.47, words_share=0.1, length=512, exchanges=34, rate=(1.0, 0.55)),
    Stage(13200, 0.4, 0.04, 0.56, words_share=0.1, exchanges=10),
    Stage(15200, 0.45, 0.03, 0.52, words_share=0.1, length=512, exchanges=34, rate=(1.0, 0.02)),
)
TINY_STAGES = (
    Stage(2500, 0.85, 0.15, 0.0, words_share=0.5),
    Stage(3500, 1.0, 0.0, 0.0, words_share=0.3),
    Stage(5500, 1.0, 0.0, 0.0, words_share=0.3, rate=(1.0, 0.02)),
)
RECIPES = {
    "demo-narrow": Recipe(128, 4, 384, NARROW_STAGES),
    "demo-base": Recipe(128, 4, 384, BASE_STAGES, begins_with="demo-narrow"),
    "demo-tiny": Recipe(64, 4, 192, TINY_STAGES, learning_rate=2e-3),
}


def make_model(recipe: Recipe, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """The untrained model."""
    bos, eos, pad, end = (token_id(tokenizer, token) for token in (BOS, EOS, PAD, END))
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=HEADS,
        tie_word_embeddings=True,
        initializer_range=0.05,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=bos, eos_token_id=[eos, end], pad_token_id=pad)
    return model


def batch_rows(recipe: Recipe, teacher: Teacher, name: str, step: int) -> list[Row]:
    """The rows of a step, each cut to the stage's length."""
    rng = Random(f"{name}/{step}")
    stage, _ = stage_at(recipe, step)
    draws: list[Callable[[], Row]] = [
        lambda: teacher.questions(rng, stage.length + 1, stage.words_share),
        lambda: teacher.copies(rng, stage.length + 1),
        lambda: teacher.chats(rng, stage.length + 1, stage.exchanges),
    ]
    kinds = rng.choices(draws, (stage.questions, stage.copies, stage.chats), k=TOKENS_PER_STEP // stage.length)
    rows = [draw() for draw in kinds]
    return [Row(row.ids[: stage.length + 1], row.weights[: stage.length + 1]) for row in rows]


def step_loss(model: LlamaForCausalLM, rows: list[Row]) -> torch.Tensor:
    """The weighted mean cross-entropy in nats over the rows' next tokens."""
    ids = torch.tensor([row.ids for row in rows])
    weights = torch.tensor([row.weights for row in rows])[:, 1:].reshape(-1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids[:, :-1]).logits
    losses = cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].reshape(-1), reduction="none")
    return (losses * weights).sum() / weights.sum()


def stage_at(recipe: Recipe, step: int) -> tuple[Stage, int]:
    """The stage that a step belongs to, and the step at which that stage begins."""
    begin = 0
    for stage in recipe.stages:
        if step < stage.until:
            return stage, begin
        begin = stage.until
    raise ValueError(f"step {step}: the training ends at {recipe.steps}")


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear from one end of the stage to the other, after a linear warm-up."""
    stage, begin = stage_at(recipe, step)
    first, last = stage.rate
    share = first + (last - first) * (step - begin) / (stage.until - begin)
    return recipe.learning_rate * min(share, (step + 1) / WARMUP_STEPS)


def validation_line(model: LlamaForCausalLM, tokenizer: Tokenizer, chat: bool) -> str:
    """Accuracy on 40 questions a subject of the dev split, and recall by distance on dev conversations, in percent."""
    model.eval()
    parts = [
        f"{subject} {100 * accuracy(model, tokenizer, draw_distinct(subject, 'dev', 40, VALIDATION_SEED)):.0f}"
        for subject in RULES
    ]
    for distance in DISTANCES if chat else ():
        rate = recall(model, tokenizer, recall_cases(distance, 25, "dev", VALIDATION_SEED))
        parts.append(f"recall@{distance} {100 * rate:.0f}")
    model.train()
    return ", ".join(parts)


def save_checkpoint(path: Path, step: int, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> None:
    """Replace the checkpoint in one move: after `step` steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, fresh)
    fresh.replace(path)


def load_checkpoint(path: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    """Load a checkpoint where there is one; the steps done."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def train(name: str, work: Path, log: Callable[[str], None]) -> LlamaForCausalLM:
    """Train one model from its last checkpoint, or from the start."""
    recipe = RECIPES[name]
    tokenizer = Tokenizer.from_file(str(DEMO_MODELS["demo-base"] / "tokenizer.json"))
    teacher = Teacher(tokenizer, [subject for subject in RULES if subject not in LEFT_OUT.get(name, ())])
    torch.manual_seed(2026)
    model = make_model(recipe, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    path = work / f"{name}.pt"
    first = load_checkpoint(path, model, optimizer)
    if not first and recipe.begins_with:
        if not (work / f"{recipe.begins_with}.pt").exists():
            train(recipe.begins_with, work, log)
        first = load_checkpoint(work / f"{recipe.begins_with}.pt", model, optimizer)
    log(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, steps {first} to {recipe.steps}")
    began, total = time.perf_counter(), 0.0
    for step in range(first, recipe.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, step)
        loss = step_loss(model, batch_rows(recipe, teacher, name, step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        if (step + 1) % LOG_STEPS == 0 or step + 1 == recipe.steps:
            mean, total = total / ((step % LOG_STEPS) + 1), 0.0
            scores = validation_line(model, tokenizer, recipe.stages[0].chats > 0)
            log(f"{name} step {step + 1} {time.perf_counter() - began:.0f}s loss {mean:.4f}: {scores}")
            save_checkpoint(path, step + 1, model, optimizer)
    return model


def main() -> None:
    """Train the named models, all three by default, and write them into their folders."""
    parser = argparse.ArgumentParser(description="Train the demo models.")
    parser.add_argument("names", nargs="*", default=list(DEMO_MODELS), help=f"of {', '.join(DEMO_MODELS)}")
    parser.add_argument("--log", type=Path, default=Path("docs/demo-training.log"))
    parser.add_argument("--work", type=Path, default=Path("results/demo-training"), help="folder for checkpoints")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    build()

    def log(line: str) -> None:
        print(line, flush=True)
        with options.log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    for name in options.names:
        train(name, options.work, log).eval().save_pretrained(DEMO_MODELS[name])
        (DEMO_MODELS[name] / "model.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
