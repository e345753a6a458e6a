"""Short names for models: as short as possible while all differ."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from llmjobs.report.study import RawEntry

T = TypeVar("T")


def label_entries(entries: Sequence[RawEntry]) -> list[str]:
    """Return a label for each entry: the model's name, and only those settings that distinguish it from another.

    ``meta-llama/Llama-3.2-1B`` on two devices gives ``Llama-3.2-1B cpu`` and ``Llama-3.2-1B cuda``. The study comes
    first, because two people's results for one model differ in more than the device.
    """
    reads = (_owner, _study, _quantization, _engine, _device, _dtype, _prompts, _machine, _run, _source)
    return distinct_labels([_name(entry) for entry in entries], entries, reads)


def distinct_labels(names: Sequence[str], things: Sequence[T], reads: Sequence[Callable[[T], str]]) -> list[str]:
    """Return a label for each of ``things``: its name, and of ``reads``, in order, what tells it from another one.

    Labels that nothing distinguishes are numbered.
    """
    labels = list(names)
    for read in reads:
        counts = Counter(labels)
        values: dict[str, set[str]] = {}
        for label, thing in zip(labels, things, strict=True):
            values.setdefault(label, set()).add(read(thing))
        labels = [
            f"{label} {read(thing)}".strip() if counts[label] > 1 and len(values[label]) > 1 else label
            for label, thing in zip(labels, things, strict=True)
        ]
    return _numbered(labels)


def _numbered(labels: Sequence[str]) -> list[str]:
    counts, seen, result = Counter(labels), Counter[str](), []
    for label in labels:
        seen[label] += 1
        result.append(f"{label} #{seen[label]}" if counts[label] > 1 else label)
    return result


def _name(entry: RawEntry) -> str:
    name = str(entry.info.details.get("name") or entry.info.id)
    return name.rstrip("/").rsplit("/", 1)[-1] or name


def _owner(entry: RawEntry) -> str:
    owner = entry.info.id.rpartition("/")[0]
    return f"({owner})" if owner else ""


def _quantization(entry: RawEntry) -> str:
    return entry.info.quantization if entry.info.quantization not in ("", "none") else "unquantized"


def _engine(entry: RawEntry) -> str:
    return entry.info.engine


def _device(entry: RawEntry) -> str:
    return entry.info.device


def _dtype(entry: RawEntry) -> str:
    return entry.info.dtype


def _prompts(entry: RawEntry) -> str:
    return " ".join(f"({value})" for value in entry.info.prompts if value)


def _machine(entry: RawEntry) -> str:
    cpu = str(entry.machine.get("cpu") or "")
    return f"({cpu})" if cpu else ""


def _study(entry: RawEntry) -> str:
    return f"({entry.info.study})" if entry.info.study else ""


def _run(entry: RawEntry) -> str:
    return f"({entry.info.run})" if entry.info.run else ""


def _source(entry: RawEntry) -> str:
    name = re.sub(r"\.(csv|tsv|txt|jsonl?|eval)$", "", entry.source.rsplit("/", 1)[-1])
    return f"({name})" if 0 < len(name) <= 40 else ""
