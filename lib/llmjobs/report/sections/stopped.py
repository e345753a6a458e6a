"""Stopped when decided: how many questions a rule needed (``stop:``), and what is known from them."""

from collections.abc import Mapping
from typing import Any

from llmjobs.report.blocks import Block, Column, Content, Finding, Prose, Section, Table
from llmjobs.report.measure import Measures
from llmjobs.report.numbers import count, percent
from llmjobs.report.read.json_files import listed, mapping, number_or_none
from llmjobs.report.study import RawRun
from llmjobs.report.wording import DASH


def wanted(measures: Measures) -> bool:
    """Whether a run asked its questions until a rule was decided."""
    return any(run.races for run in measures.study.runs)


def build(measures: Measures) -> Content:
    """One table for each race: every model with the questions it was asked, its accuracy and what was decided."""
    blocks: list[Block] = [
        Prose(
            "These runs asked their questions in random order and stopped when a rule was decided. The intervals of"
            " this chapter hold at every moment at which a run may stop, for the accuracy on all questions. The other"
            " chapters use the questions that all models answered; their intervals assume that this number was fixed"
            " beforehand."
        )
    ]
    findings: list[Finding] = []
    for run in measures.study.runs:
        for race in run.races:
            blocks += [Prose(str(race.get("sentence", ""))), _table(run, race)]
            asked, whole = (number_or_none(race.get(name)) or 0 for name in ("asked", "population"))
            if whole:
                findings.append(Finding(percent(asked / whole), str(race.get("sentence", "")), 101.0))
    return Content(blocks, findings)


def _table(run: RawRun, race: Mapping[str, Any]) -> Table:
    rows = []
    for model in map(mapping, listed(race.get("models"))):
        low, high, value = (number_or_none(model.get(name)) for name in ("low", "high", "accuracy"))
        known = low is not None and high is not None and value is not None
        rows.append(
            [
                str(model.get("model", "")),
                count(int(number_or_none(model.get("asked")) or 0)),
                percent(value) if value is not None else DASH,
                f"{percent(low)} to {percent(high)}" if known and low is not None and high is not None else DASH,
                str(model.get("outcome", "")),
            ]
        )
    columns = [
        Column("Model", "left", 1),
        Column("Questions"),
        Column("Accuracy"),
        Column("95% interval", "left"),
        Column("Outcome", "left", 2),
    ]
    whole = count(int(number_or_none(race.get("population")) or 0))
    return Table(f"{run.path.name}: {race.get('name')}, of {whole} questions", columns, rows)


SECTION = Section("stopped", "Stopped when decided", wanted, build)
