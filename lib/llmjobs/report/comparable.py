"""Refuses to compare what is not comparable, and says what differs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmjobs.errors import DataError
from llmjobs.report.study import RawEntry, RawRun

Key = tuple[str, str]


@dataclass(frozen=True)
class Candidate:
    """One entry's part in one benchmark: what was asked of it, and the gold answers it was judged by."""

    label: str
    entry: RawEntry
    run: RawRun
    asked: frozenset[Key]
    gold: Mapping[Key, str]


def differing_protocol(candidates: Sequence[Candidate], benchmark: str) -> list[str]:
    """Return one sentence for every field of the protocol that two candidates have and do not share."""
    fields: dict[str, dict[str, list[str]]] = {}
    for candidate in candidates:
        for name, value in candidate.entry.protocol.get(benchmark, {}).items():
            fields.setdefault(name, {}).setdefault(value, []).append(candidate.label)
    return [
        f"{name} differs ({'; '.join(f'{value or chr(45)}: {_few(who)}' for value, who in sorted(values.items()))})"
        for name, values in sorted(fields.items())
        if len(values) > 1
    ]


def differing_questions(candidates: Sequence[Candidate]) -> str | None:
    """Return a sentence when the candidates were not asked the same questions, else None."""
    sets = {candidate.asked for candidate in candidates}
    if len(sets) < 2:
        return None
    shared = len(frozenset.intersection(*sets))
    sizes: dict[frozenset[Key], list[str]] = {}
    for candidate in candidates:
        sizes.setdefault(candidate.asked, []).append(candidate.label)
    told = "; ".join(f"{len(asked):,}: {_few(who)}" for asked, who in sorted(sizes.items(), key=lambda s: -len(s[0])))
    return f"different questions ({told}; {shared:,} in common)"


def differing_gold(candidates: Sequence[Candidate]) -> set[Key]:
    """Return the questions whose gold answer or text is not the same for all candidates."""
    first: dict[Key, str] = {}
    differ: set[Key] = set()
    for candidate in candidates:
        for key, gold in candidate.gold.items():
            if first.setdefault(key, gold) != gold:
                differ.add(key)
    return differ


def refuse(problems: Mapping[str, Sequence[str]], common_helps: bool) -> None:
    """Raise a DataError when there is a problem."""
    if not problems:
        return
    told = "; ".join(f"{benchmark}: {', '.join(lines)}" for benchmark, lines in problems.items())
    help_ = "--common compares on the common questions, " if common_helps else ""
    raise DataError(
        f"these results are not comparable: {told}. {help_}--where COLUMN=VALUE (study, run, model, device,"
        " quantization, benchmark) takes a part of them"
    )


def _few(names: Iterable[str]) -> str:
    listed = list(dict.fromkeys(names))
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
