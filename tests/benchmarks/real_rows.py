"""Real rows for the parity test, converted to the hub's form from published copies.

LLMJOBS_SHARED names the folder that holds ``data/``; none of it is part of the project, and without it these tests are
skipped.
"""

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_samples import Rows

FOLDER = Path(os.environ.get("LLMJOBS_SHARED", Path(__file__).parents[3] / "shared")) / "data"
COUNT = 8


def _json(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def _lines(name: str) -> Rows:
    with (FOLDER / name).open(encoding="utf-8") as stream:
        return [json.loads(line) for _, line in zip(range(COUNT), stream, strict=False)]


def _mmlu() -> dict[str, Rows]:
    rows = {}
    for split in ("test", "dev"):
        with (FOLDER / "mmlu" / split / f"astronomy_{split}.csv").open(encoding="utf-8", newline="") as f:
            rows[split] = [
                {"question": r["question"], "choices": [r[f"choice{i}"] for i in range(4)], "answer": int(r["answer"])}
                for r in list(csv.DictReader(f))[:COUNT]
            ]
    return rows


def _in_prompt(name: str, split: str, word: str) -> list[tuple[str, list[str], int]]:
    """Question, options and gold out of the LLM-Adapters form, whose options stand in the instruction."""
    found = []
    for row in _json(f"choices_inside_prompt/{name}/{split}.json")[:COUNT]:
        text = row["instruction"].split(": ", 1)[1].rsplit("Answer format", 1)[0]
        question, *options = re.split(rf"\s*{word}\d: ", text.strip())
        found.append((question, [option.strip() for option in options], int(row["answer"][-1]) - 1))
    return found


def _labelled(name: str, split: str, key: str) -> Rows:
    return [
        {key: q, "choices": {"text": o, "label": list("ABCDE"[: len(o)])}, "answerKey": "ABCDE"[gold]}
        for q, o, gold in _in_prompt(name, split, "Answer")
    ]


def _arc(name: str) -> dict[str, Rows]:
    return {"test": _labelled(name, "test", "question"), "train": _labelled(name, "train", "question")}


def _openbookqa() -> dict[str, Rows]:
    return {split: _labelled("openbookqa", split, "question_stem") for split in ("test", "train")}


def _piqa() -> dict[str, Rows]:
    rows = [
        {"goal": q, "sol1": o[0], "sol2": o[1], "label": gold} for q, o, gold in _in_prompt("piqa", "test", "Solution")
    ]
    return {"validation": rows[2:], "train": rows[:2]}


def _winogrande() -> dict[str, Rows]:
    rows = [
        {"sentence": q, "option1": o[0], "option2": o[1], "answer": str(gold + 1)}
        for q, o, gold in _in_prompt("winogrande", "test", "Option")
    ]
    return {"validation": rows[2:], "train": rows[:2]}


def _hellaswag() -> dict[str, Rows]:
    lines = (FOLDER / "hellaswag" / "hellaswag_val_full.txt").read_text(encoding="utf-8").split("\n")
    rows = []
    for at in range(0, 6 * COUNT, 6):
        activity, _, scene = lines[at].partition(": ")
        rows.append(
            {
                "activity_label": activity,
                "ctx_a": scene,
                "ctx_b": "",
                "endings": lines[at + 2 : at + 6],
                "label": lines[at + 1],
            }
        )
    return {"validation": rows[2:], "train": rows[:2]}


def _truthfulqa() -> dict[str, Rows]:
    rows = _json("truthfulqa/data/mc_task.json")[:COUNT]
    return {
        "validation": [
            {
                "question": row["question"],
                **{
                    k: {"choices": list(row[k]), "labels": list(row[k].values())}
                    for k in ("mc1_targets", "mc2_targets")
                },
            }
            for row in rows
        ]
    }


def _gsm8k() -> dict[str, Rows]:
    return {split: _lines(f"gsm8k/{split}.jsonl") for split in ("test", "train")}


def _commonsense() -> dict[str, Rows]:
    rows = _lines("commonsenseqa/dev_rand_split.jsonl")
    return {"validation": rows[2:], "train": rows[:2]}


_READERS: dict[str, Callable[[], dict[str, Rows]]] = {
    "mmlu": _mmlu,
    "arc_easy": lambda: _arc("ARC-Easy"),
    "arc_challenge": lambda: _arc("ARC-Challenge"),
    "openbookqa": _openbookqa,
    "piqa": _piqa,
    "winogrande": _winogrande,
    "hellaswag": _hellaswag,
    "truthfulqa_mc1": _truthfulqa,
    "truthfulqa_mc2": _truthfulqa,
    "gsm8k": _gsm8k,
    "commonsense_qa": _commonsense,
}
REAL = list(_READERS) if FOLDER.is_dir() else []


def real_rows(name: str) -> dict[str, Rows]:
    return _READERS[name]()
