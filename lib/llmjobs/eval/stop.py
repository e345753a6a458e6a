"""Ask no more questions than a rule needs (``stop:``): in which order, who is still asked, and what was decided.

The questions of a benchmark (or of the whole study) are divided into blocks, the same for every model. After each block
the rule is applied to all answers so far; models for which everything is decided are not asked any further. Everything
follows from the records, so a resumed run continues where it stopped.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmjobs.eval.tasks import Task
from llmjobs.manifest import EvalSection, Manifest
from llmjobs.manifest.eval import StopRule
from llmjobs.statistics.sequential import Race, Rule, Verdict, question_blocks, questions_needed
from llmjobs.terminal_text import agree, fixed, listed, plural
from llmjobs.work import unit_progress
from llmjobs.work.folder import RECORDS, RunFolder
from llmjobs.work.journal import read_lines
from llmjobs.work.unit_progress import Cursor
from llmjobs.work.units import Turn, Unit

Blocks = list[list[int]]
"""The ids of one unit's questions, block by block."""
Bools = NDArray[np.bool_]


def recorded_blocks(effective: Mapping[str, Any]) -> Blocks | None:
    """Return the blocks with which a unit was started; None if it was started without."""
    found = effective.get("blocks")
    return [list(block) for block in found["docs"]] if found else None


def blocks_record(blocks: Blocks, steps: Iterable[int]) -> dict[str, Any]:
    """Return what a unit records about its blocks, with the number of steps up to the end of each.

    ``steps``: number of steps of each block.
    """
    return {"docs": blocks, "ends": np.cumsum(list(steps)).tolist()}


class StopWhenDecided:
    """The races of a study: one for each benchmark, or one over all of them."""

    def __init__(self, study: Manifest, section: EvalSection, tasks: Sequence[Task], folder: RunFolder) -> None:
        """``tasks`` are all tasks of the study, with those that cannot run."""
        assert section.stop is not None
        references = section.stop.references({model.name: model.id for model in study.models})
        by_race: dict[str, list[Task]] = defaultdict(list)
        for task in tasks:
            by_race["study" if section.stop.over == "study" else task.data.spec.name].append(task)
        self.rule = section.stop
        self.broken = [task for task in tasks if task.error]
        self.races = [_Race(name, of, section.stop, references, folder, section.seed) for name, of in by_race.items()]

    def blocks_of(self, unit_path: str) -> Blocks | None:
        """Return the blocks of a unit's questions."""
        return next((race.blocks_of[unit_path] for race in self.races if unit_path in race.blocks_of), None)

    def turns(self, units: Sequence[Unit]) -> Iterator[Turn]:
        """Yield what runs next, block by block and in each block model by model.

        The models change direction with each block, so the last one of a block is still loaded for the next one.
        """
        by_path = {unit.path: unit for unit in units}
        for task in self.broken:
            yield Turn(by_path[task.path])
        while pending := [race for race in self.races if not race.is_over()]:
            order = list(dict.fromkeys(unit.group for unit in units))
            if max(race.next_block for race in pending) % 2:
                order.reverse()
            for model in order:
                for race in pending:
                    yield from race.turns(model, by_path)
            for race in pending:
                race.end_block()

    def to_record(self) -> dict[str, Any]:
        """Return the rule and what was decided, for ``summary.json``."""
        for race in self.races:
            race.is_over()
        rule = {self.rule.kind: self.rule.value, "over": self.rule.over}
        return {"rule": rule, "races": [race.to_record() for race in self.races]}

    def sentences(self) -> list[str]:
        """Return what was decided so far, one line for each race."""
        return [race["sentence"] for race in self.to_record()["races"]]

    @property
    def decided(self) -> bool:
        """Whether no race needs another question."""
        return all(race.is_over() for race in self.races)


@dataclass
class _Race:
    """One race: its questions in blocks, the answers so far, and the verdict."""

    name: str
    tasks: Sequence[Task]
    rule: StopRule
    references: Mapping[str, str]
    folder: RunFolder
    seed: int

    def __post_init__(self) -> None:
        self.failed = dict.fromkeys(task.model.name for task in self.tasks if task.error)
        self.next_block = 0
        self._race: Race | None = None
        self._answers: dict[str, tuple[int, dict[int, bool]]] = {}

    @cached_property
    def population(self) -> list[tuple[str, int]]:
        """The questions: name of the subject's data, and id."""
        counts = {task.data.key: task.data.count for task in self.tasks}
        return [(key, at) for key, count in counts.items() for at in range(count)]

    @cached_property
    def blocks(self) -> list[list[tuple[str, int]]]:
        """The questions in blocks, those of a subject together and in order."""
        blocks = question_blocks([key for key, _ in self.population], seed=self.seed)
        return [[self.population[at] for at in sorted(block)] for block in blocks]

    @cached_property
    def blocks_of(self) -> dict[str, Blocks]:
        """The blocks of each unit."""
        by_key: dict[str, Blocks] = defaultdict(lambda: [[] for _ in self.blocks])
        for number, block in enumerate(self.blocks):
            for key, at in block:
                by_key[key][number].append(at)
        return {task.path: by_key[task.data.key] for task in self.tasks}

    @cached_property
    def _whole(self) -> set[str]:
        """Units that were started in another order: they are asked to their end."""
        return {task.path for task in self.tasks if self._started_otherwise(task)}

    def _started_otherwise(self, task: Task) -> bool:
        effective = self._cursor(task).effective
        return bool(effective) and recorded_blocks(effective) != self.blocks_of[task.path]

    def _cursor(self, task: Task) -> Cursor:
        unit = task.unit(self.seed)
        if not unit_progress.has_begun(self.folder, unit.path):
            return Cursor({})
        return unit_progress.load(self.folder.unit(unit.path), unit.declared)[0]

    def turns(self, model: str, units: Mapping[str, Unit]) -> Iterator[Turn]:
        """Yield the units of a model that have questions in the next block, if it is still asked."""
        assert self._race is not None
        if model not in self._race.racing:
            return
        for task in self.tasks:
            if task.model.name == model and self.blocks_of[task.path][self.next_block]:
                yield Turn(units[task.path], None if task.path in self._whole else self.next_block)

    def end_block(self) -> None:
        """Leave out the models that could not answer the block, and what is compared with them."""
        assert self._race is not None
        failed = [model for model in self._race.racing if self._block_of(model, self.next_block) is None]
        if failed:
            self.failed |= dict.fromkeys(failed)
            self._race = None  # begins again without them

    def is_over(self) -> bool:
        """Add the blocks that all models in the race have answered; return whether no further question is needed."""
        if self._race is None:
            names = list(dict.fromkeys(task.model.name for task in self.tasks))
            without = {*self.failed, *(name for name, other in self.references.items() if other in self.failed)}
            racing = [name for name in names if name not in without]
            references = {name: other for name, other in self.references.items() if name in racing}
            alone = len(racing) < 2 and self.rule.kind in ("best", "compare")
            if not racing or alone or not self.population or (self.rule.kind == "lose" and not references):
                return True
            rule = Rule(self.rule.kind, self.rule.value)
            self._race, self.next_block = Race(rule, len(self.population), racing, references), 0
        while self._race.racing and self.next_block < len(self.blocks):
            answers = {name: self._block_of(name, self.next_block) for name in self._race.racing}
            if any(found is None for found in answers.values()):
                return False
            self._race.add({name: found for name, found in answers.items() if found is not None})
            self.next_block += 1
        return True

    def _block_of(self, model: str, number: int) -> Bools | None:
        """Return whether each answer of a block is right, an error counting as wrong; None if one is missing."""
        block = self.blocks[number]
        answers = {key: self._right(self._tasks[model, key]) for key in dict.fromkeys(key for key, _ in block)}
        right = [answers[key].get(at) for key, at in block]
        return None if None in right else np.array(right, dtype=np.bool_)

    @cached_property
    def _tasks(self) -> dict[tuple[str, str], Task]:
        return {(task.model.name, task.data.key): task for task in self.tasks}

    def _right(self, task: Task) -> dict[int, bool]:
        """Return the saved answers of a unit: whether each is right, by the question's id."""
        cursor = self._cursor(task)
        known = self._answers.get(task.path)
        if known is None or known[0] != cursor.records_bytes:
            path = self.folder.path / task.path / RECORDS
            lines = read_lines(path, allow_torn=True) if cursor.records_bytes else ()
            saved = (line for _, end, line in lines if end <= cursor.records_bytes)
            known = cursor.records_bytes, {int(line["doc_id"]): bool(line["correct"]) for line in saved}
            self._answers[task.path] = known
        return known[1]

    def to_record(self) -> dict[str, Any]:
        """Return what was decided, for ``summary.json``; shares are between 0 and 1."""
        if self._race is None:
            nobody = f"{self.name}: not decided, because too few models could answer"
            return {"name": self.name, "sentence": nobody, "decided": False, "failed": list(self.failed)}
        rule, found = self._race.rule, self._race.verdict()
        models = list(dict.fromkeys(task.model.name for task in self.tasks))
        return {
            "name": self.name,
            "sentence": sentence(self.name, rule, found),
            "decided": found.decided,
            "by": found.by,
            "asked": found.asked,
            "population": found.population,
            "confidence": round(1 - rule.error, 6),
            "leaders": list(found.leaders),
            "failed": list(self.failed),
            "models": [_model(name, rule, found) for name in models],
            "pairs": [
                {"first": one.first, "second": one.second, "asked": one.asked, "outcome": one.outcome}
                | {key: _rounded(getattr(one, name)) for key, name in _SHARES.items()}
                for one in found.pairs
            ],
        }


_SHARES = {"difference": "value", "low": "low", "high": "high"}


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _model(name: str, rule: Rule, found: Verdict) -> dict[str, Any]:
    """One model: what it was asked, and the accuracy that it would have on all questions."""
    one = found.estimates.get(name)
    if one is None:
        return {"model": name, "asked": 0, "accuracy": None, "low": None, "high": None, "outcome": "could not answer"}
    if name in found.out:
        after, rival = found.out[name]
        outcome = f"loses to {rival}" if name in found.losing else f"behind {rival}"
        outcome += f" after {plural(after, 'question')}"
    elif name in found.losing:
        outcome = {"holds": f"loses at most {_points(rule)}", "open": "open"}[found.losing[name]]
    elif any(pair.second == name for pair in found.pairs) and found.losing:
        outcome = "reference"
    else:
        outcome = "leads" if name in found.leaders else "known" if found.decided else "open"
    return {
        "model": name,
        "asked": one.asked,
        "accuracy": _rounded(one.value),
        "low": round(one.low, 6),
        "high": round(one.high, 6),
        "outcome": outcome,
    }


def sentence(name: str, rule: Rule, found: Verdict) -> str:
    """Return what was decided, and after how many questions."""
    of = f"{found.asked:,} of {plural(found.population, 'question')}"
    if not found.decided:
        return f"{name}: not decided after {of}"
    start = (
        f"{name}: decided after {of}: " if found.by == "rule" else f"{name}: all {found.population:,} questions asked: "
    )
    sure = f"{100 * (1 - rule.error):g}% confidence" if found.by == "rule" else "no earlier decision was possible"
    return f"{start}{_decision(rule, found)} ({sure})"


def _points(rule: Rule) -> str:
    return f"{rule.value:g} {'point' if rule.value == 1 else 'points'}"


def _decision(rule: Rule, found: Verdict) -> str:
    points = _points(rule)
    if rule.kind == "best":
        many = len(found.leaders) > 1
        return f"{listed(found.leaders)} {'are level' if many else 'is the best'}"
    if rule.kind == "precision":
        width = max(((one.high - one.low) / 2 for one in found.estimates.values()), default=0.0)
        return f"every accuracy is known within {fixed(100 * width, 1)} points"
    if rule.kind == "compare":
        differ = sum(pair.outcome == "differs" for pair in found.pairs)
        within = sum(pair.outcome == "within" for pair in found.pairs)
        rest = len(found.pairs) - differ - within
        parts = [f"{plural(differ, 'pair')} {agree(differ, 'differs', 'differ')}"] * bool(differ)
        parts += [f"{plural(within, 'pair')} {agree(within, 'is', 'are')} within {points}"] * bool(within)
        parts += [f"{plural(rest, 'pair')} {agree(rest, 'is', 'are')} open"] * bool(rest)
        return listed(parts)
    by_outcome = {
        outcome: [model for model, one in found.losing.items() if one == outcome]
        for outcome in ("holds", "loses", "open")
    }
    words = {"holds": f"lose at most {points}", "loses": "lose more", "open": "are open"}
    singular = {"holds": f"loses at most {points}", "loses": "loses more", "open": "is open"}
    return "; ".join(
        f"{listed(models)} {(singular if len(models) == 1 else words)[outcome]}"
        for outcome, models in by_outcome.items()
        if models
    )


GAPS = (10.0, 5.0, 2.0)
"""Leads of the best model, in points, for which a plan says how many questions are asked."""
DISCORDANT, DISCORDANT_PRECISIONS = 0.3, 0.1
"""Usual shares of questions that only one of two models has right: two models, two precisions of one model."""


def forecast(stop: StopRule, population: int, models: int) -> str:
    """Say in one line how many of ``population`` questions a rule will probably need."""
    rule = Rule(stop.kind, stop.value)

    def needed(gap: float, discordant: float = DISCORDANT) -> str:
        found = questions_needed(gap / 100, discordant, population, rule, models)
        return "all" if found is None else f"about {found:,}"

    if rule.kind == "best":
        leads = "; ".join(f"{needed(gap)} if the best model leads by {gap:g} points" for gap in GAPS)
        return f"of {plural(population, 'question')}, {leads}"
    if rule.kind == "precision":
        return f"{needed(0)} of {plural(population, 'question')} for an accuracy of 50%, fewer for others"
    if rule.kind == "lose":
        return f"{needed(0, DISCORDANT_PRECISIONS)} of {plural(population, 'question')} for a model that loses nothing"
    return f"{needed(0)} of {plural(population, 'question')} for models that are equally good"
