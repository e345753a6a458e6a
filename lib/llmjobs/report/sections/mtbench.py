"""MT-Bench: scores with intervals, a radar by category, comparisons, what the judges are worth, examples."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Table
from llmjobs.report.figures import mtbench as plots
from llmjobs.report.measure import Measures
from llmjobs.report.read.json_files import read_lines
from llmjobs.report.sections.base import Section
from llmjobs.report.sections.mtbench_judges import judge_blocks
from llmjobs.report.study import RawRun
from llmjobs.report.wording import DASH, count, decimal, percent
from llmjobs.report.write.notes import QUALITY

Values = Mapping[str, Any]
SHOWN_WORDS = 40
EXAMPLES = 3


def _parts(measures: Measures) -> Iterator[tuple[RawRun, Values]]:
    for run in measures.study.runs:
        part = run.summary.get("mtbench")
        if isinstance(part, Mapping) and (part.get("scores") or part.get("pairwise") or part.get("agents")):
            yield run, part


def _wanted(measures: Measures) -> bool:
    return next(_parts(measures), None) is not None


def build(measures: Measures) -> Content:
    """Put every run's judges and agents on paper."""
    blocks: list[Block] = [
        Prose(
            "Two-turn questions in eight categories, rated from 1 to 10 by a judge or compared in pairs. A score is "
            "the mean over all turns that were rated; its interval is a bootstrap over questions. Pairs are judged in "
            "both orders, and verdicts that disagree are a tie. A judgment that could not be read was asked for "
            "once more, then counted as unread; it is in no mean. An answer that failed is not judged."
        )
    ]
    findings: list[Finding] = []
    for place, (run, part) in enumerate(_parts(measures), start=1):
        blocks += [*_alarms(part), _agents(part)]
        blocks += _scores(place, part)
        blocks += _pairwise(part)
        blocks += _history(part)
        blocks += judge_blocks(part)
        blocks += _examples(run, part)
        findings += _findings(part)
    return Content(blocks, findings, [(QUALITY, finding.sentence) for finding in findings])


def _alarms(part: Values) -> list[Block]:
    """Say where most of what a judge said could not be read."""
    found: list[Block] = []
    for row in part["judges"]:
        asked = row["n"] - row["not_judged"]
        lost = row["unread"] + row["error"]
        if asked and lost / asked > 0.1:
            text = (
                f"{count(lost)} of {count(asked)} judgments by {row['judge']} ({row['mode']}) could not be read "
                f"or failed: this judge does not judge these answers, and its scores stand on what is left."
            )
            found.append(Prose(text, kind="alarm"))
    return found


def _agents(part: Values) -> Table:
    columns = [
        Column("Agent", "left", 1),
        Column("Kind", "left"),
        Column("Whole answers"),
        Column("Failed"),
        Column("Cut off"),
        Column("Tokens a turn"),
        Column("Characters a turn"),
    ]
    rows = []
    for row in part["agents"]:
        turns = row["turns"]
        tokens = f"{row['tokens_new'] / turns:,.0f}" if turns and row["tokens_new"] is not None else DASH
        characters = f"{row['characters'] / turns:,.0f}" if turns else DASH
        kind = row["kind"] + ("" if row["history"] else ", no history")
        counts = [count(row[key]) for key in ("answered", "errors", "cut_off")]
        rows.append([row["model"], kind, *counts, tokens, characters])
    return Table("Who answered", columns, rows, note="Cut off: turns that reached the longest allowed answer.")


def _scores(place: int, part: Values) -> list[Block]:
    blocks: list[Block] = []
    lengths = {
        row["model"]: row["tokens_new"] / row["turns"] for row in part["agents"] if row["tokens_new"] and row["turns"]
    }
    for number, judge in enumerate(dict.fromkeys(row["judge"] for row in part["scores"]), start=1):
        rows = [row for row in part["scores"] if row["judge"] == judge]
        blocks += [Heading(f"Ratings by {judge}"), _score_table(rows)]
        rated = [row for row in rows if row["score"] is not None]
        if not rated:
            continue
        caption = "Mean rating by category, 1 at the centre and 10 at the rim; a line an agent."
        if len(part["categories"]) > 2:
            draw = partial(plots.radar, rated, part["categories"])
            blocks.append(Figure(f"mtbench-radar-{place}-{number}", caption, draw))
        both = [row for row in rated if row["model"] in lengths]
        if len(both) > 1:
            caption = "Score against the length of the answers; imported ones have no token counts and are not shown."
            draw = partial(plots.score_against_tokens, both, lengths)
            blocks.append(Figure(f"mtbench-tokens-{place}-{number}", caption, draw))
    return blocks


def _score_table(rows: Sequence[Values]) -> Table:
    columns = [Column("Agent", "left", 1), Column("Score"), Column("95% interval"), Column("Turn 1"), Column("Turn 2")]
    columns += [Column("Rated"), Column("Unread")]
    ordered = sorted(rows, key=lambda row: -(row["score"] or 0))
    lines = []
    for row in ordered:
        turns = {part["turn"]: part["score"] for part in row["by_turn"]}
        ends = f"{decimal(row['low'])} to {decimal(row['high'])}" if row["score"] is not None else DASH
        values = [decimal(row["score"]), ends, decimal(turns.get(1)), decimal(turns.get(2))]
        lines.append([row["model"], *values, count(row["n"]), count(row["unread"])])
    return Table("Mean rating over all turns", columns, lines)


def _pairwise(part: Values) -> list[Block]:
    blocks: list[Block] = []
    for row in part["pairwise"]:
        ratings = {one["model"]: one for one in row["bradley_terry"]}
        columns = [Column("Agent", "left", 1), Column("Win rate"), Column("Won"), Column("Tied"), Column("Lost")]
        columns += [Column("Unread"), Column("Bradley-Terry"), Column("95% interval")]
        lines = []
        for one in row["win_rates"]:
            rating = ratings.get(one["model"])
            told = (
                [f"{rating['rating']:.0f}", f"{rating['low']:.0f} to {rating['high']:.0f}"] if rating else [DASH, DASH]
            )
            rate = percent(one["win_rate"]) if one["win_rate"] is not None else DASH
            lines.append([one["model"], rate, *(count(one[k]) for k in ("wins", "ties", "losses", "unread")), *told])
        note = "A tie is half a win. Bradley-Terry on Elo's scale around 1000: 400 points are odds of ten to one."
        blocks += [
            Heading(f"Comparisons by {row['judge']}"),
            Table("Each against the others", columns, lines, note=note),
        ]
    return blocks


def _history(part: Values) -> list[Block]:
    if not part["history"]:
        return []
    columns = [Column("Agent", "left", 1), Column("Judge", "left", 1), Column("Turn"), Column("Difference")]
    columns += [Column("95% interval"), Column("Questions")]
    rows = [
        [row["model"], row["judge"], str(row["turn"]), decimal(row["difference"])]
        + [f"{decimal(row['low'])} to {decimal(row['high'])}", count(row["n"])]
        for row in part["history"]
    ]
    note = "Rating with history less rating without, on the same questions. Turn 1 has no history: it shows the noise."
    return [Heading("With history and without"), Table("What history adds", columns, rows, note=note)]


def _examples(run: RawRun, part: Values) -> list[Block]:
    """Turns on which one judge's ratings of two agents differ most, with their answers."""
    judge = next((row["judge"] for row in part["judges"] if row["mode"] == "single" and row["ok"]), None)
    ratings: dict[tuple[str, int], dict[str, float]] = {}
    for path in sorted((run.path / "mtbench" / "judgments" / str(judge) / "single").glob("*/records.jsonl")):
        for line in read_lines(path, run, f"{run.path.name}/{path.parent.name}"):
            if line.get("rating") is not None:
                ratings.setdefault((str(line["question_id"]), int(line["turn"])), {})[str(line["model"])] = line[
                    "rating"
                ]
    spread = {key: max(found.values()) - min(found.values()) for key, found in ratings.items() if len(found) > 1}
    chosen = sorted((key for key in spread if spread[key] > 0), key=lambda key: (-spread[key], key))[:EXAMPLES]
    rows = []
    for key in chosen:
        found = ratings[key]
        for model in (max(found, key=lambda name: found[name]), min(found, key=lambda name: found[name])):
            question, answer = _said(run, model, *key)
            rows.append([f"{key[0]}, turn {key[1]}", question, f"{model}: {answer}", decimal(found[model], 1)])
    if not rows:
        return []
    columns = [Column("Question", "left"), Column("Asked", "left", 1), Column("Answer", "left", 1.4), Column("Rating")]
    return [Heading("Largest differences"), Table(f"Best and worst by {judge}", columns, rows)]


def _said(run: RawRun, model: str, question_id: str, turn: int) -> tuple[str, str]:
    path = run.path / "mtbench" / "answers" / model / "records.jsonl"
    for line in read_lines(path, run, f"{run.path.name}/{model}") if path.exists() else ():
        if str(line.get("question_id")) == question_id and len(line.get("turns") or ()) >= turn:
            return _short(line["questions"][turn - 1]), _short(line["turns"][turn - 1])
    return DASH, DASH


def _short(text: str) -> str:
    words = text.split()
    return " ".join(words[:SHOWN_WORDS]) + (" …" if len(words) > SHOWN_WORDS else "")


def _findings(part: Values) -> list[Finding]:
    findings = []
    for judge in dict.fromkeys(row["judge"] for row in part["scores"]):
        rated = [row for row in part["scores"] if row["judge"] == judge and row["score"] is not None]
        if not rated:
            text = f"No rating by {judge} could be read: it does not work as a judge."
            findings.append(Finding("0", text, 50))
            continue
        best = max(rated, key=lambda row: row["score"])
        text = (
            f"Rated by {judge}, {best['model']} has {decimal(best['score'])} of 10 "
            f"(95%: {decimal(best['low'])} to {decimal(best['high'])}), the most of {count(len(rated))} agents; "
            f"{count(sum(row['unread'] for row in rated))} ratings could not be read."
        )
        findings.append(Finding(decimal(best["score"]), text, 55))
    return findings


SECTION = Section("mtbench", "How good the answers are as a judge rates them", _wanted, build)
