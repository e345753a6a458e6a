"""Refuses to compare what is not comparable, and says what differs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmjobs.errors import DataError
from llmjobs.report.study import Question, RawEntry, RawRun, Record

Key = tuple[str, str]
"""Subject and id of a question."""
OWN_NUMBERS = ("benchmark_version", "data_hash")
"""Fields that every tool counts in its own way: compared between logs of one tool only."""


@dataclass(frozen=True)
class Candidate:
    """One entry's part in one benchmark: its records, what was asked of it, and how the questions read."""

    label: str
    entry: RawEntry
    run: RawRun
    asked: frozenset[Key]
    records: Mapping[Key, Record]
    questions: Mapping[Key, Question]

    @property
    def gold(self) -> dict[Key, str]:
        """Gold answers by question, "" where the log has none."""
        return {key: record.gold for key, record in self.records.items()}


def differing_protocol(candidates: Sequence[Candidate], benchmark: str) -> list[str]:
    """Return one sentence for every field of the protocol that two candidates have and do not share."""
    fields: dict[tuple[str, str], dict[str, list[str]]] = {}
    for candidate in candidates:
        for name, value in candidate.entry.protocol.get(benchmark, {}).items():
            tool = candidate.run.kind if name.startswith(OWN_NUMBERS) else ""
            fields.setdefault((name, tool), {}).setdefault(plain_number(value), []).append(candidate.label)
    return [
        f"{name} differs ({'; '.join(f'{value or chr(45)}: {few(who)}' for value, who in sorted(values.items()))})"
        for (name, _), values in sorted(fields.items())
        if len(values) > 1
    ]


def plain_number(text: str) -> str:
    """Return a version or a number of shots without a needless ``.0``: ``1`` and ``1.0`` are the same."""
    return text.removesuffix(".0") if re.fullmatch(r"\d+\.0", text) else text


def differing_questions(candidates: Sequence[Candidate]) -> str | None:
    """Return a sentence when the candidates were not asked the same questions, else None."""
    sets = {candidate.asked for candidate in candidates}
    if len(sets) < 2:
        return None
    shared = len(frozenset.intersection(*sets))
    sizes: dict[frozenset[Key], list[str]] = {}
    for candidate in candidates:
        sizes.setdefault(candidate.asked, []).append(candidate.label)
    told = "; ".join(f"{len(asked):,}: {few(who)}" for asked, who in sorted(sizes.items(), key=lambda s: -len(s[0])))
    without = [candidate.label for candidate in candidates if not candidate.questions]
    hint = ""
    if not shared and without:
        hint = f"; the ids differ and {few(without)} has no texts to find them by, which --questions FOLDER brings"
    return f"different questions ({told}; {shared:,} in common{hint})"


def differing_gold(candidates: Sequence[Candidate]) -> set[Key]:
    """Return the questions whose gold answer or text is not the same for all candidates.

    What a log does not hold contradicts nothing. Texts agree where one holds the other, since a tool may show a
    passage or options with its question; the digest of a question is llmjobs' own and compared among its runs.
    """
    gold: dict[Key, str] = {}
    texts: dict[Key, str] = {}
    digests: dict[Key, str] = {}
    differ: set[Key] = set()
    read: set[tuple[int, Key]] = set()
    several = len({id(candidate.run) for candidate in candidates}) > 1
    for candidate in candidates:
        for key, record in candidate.records.items():
            question = candidate.questions.get(key)
            answer = fold_gold(record.gold)
            if answer and gold.setdefault(key, answer) != answer:
                differ.add(key)
            if question is None or not several or (id(candidate.run), key) in read:
                continue
            read.add((id(candidate.run), key))
            text = fold(question.text)
            known = texts.setdefault(key, text)
            if text not in known and known not in text:
                differ.add(key)
            own = candidate.run.kind == "llmjobs run" and question.hash
            if own and digests.setdefault(key, question.hash) != question.hash:
                differ.add(key)
    return differ


def fold(text: str, choices: Sequence[str] = ()) -> str:
    """Return a text without case, blanks and punctuation, to be found again in another tool's log."""
    return re.sub(r"[\W_]+", "", " ".join((text, *choices)).lower())


def fold_gold(text: str) -> str:
    """Return a gold answer as it is compared: case, blanks and the commas of large numbers aside."""
    return re.sub(r"(?<=\d),(?=\d{3})", "", " ".join(text.lower().split()))


def refuse(problems: Mapping[str, Sequence[str]], common_helps: bool) -> None:
    """Raise a DataError when there is a problem."""
    if not problems:
        return
    told = "; ".join(f"{benchmark}: {', '.join(lines)}" for benchmark, lines in problems.items())
    help_ = "--common compares on the common questions, " if common_helps else ""
    unlike = "" if common_helps else "--any-prompt compares all the same and says what differs, "
    raise DataError(
        f"these results are not comparable: {told}. {help_}{unlike}--where COLUMN=VALUE (study, run, model, device,"
        " quantization, benchmark, metric) takes a part of them"
    )


def few(names: Iterable[str]) -> str:
    """Return the first three names and how many more there are."""
    listed = list(dict.fromkeys(names))
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
