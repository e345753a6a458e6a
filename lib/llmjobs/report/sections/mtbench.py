"""MT-Bench: scores with intervals, a radar by category, comparisons, what the judges are worth, examples."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Table
from llmjobs.report.figures import mtbench as plots
from llmjobs.report.measure import Measures
from llmjobs.report.read.json_files import read_lines
from llmjobs.report.sections.base import Section
from llmjobs.report.sections.mtbench_judges import bias_findings, judge_blocks
from llmjobs.report.study import RawRun
from llmjobs.report.wording import DASH, count, decimal, listed, percent, plain_p, plural, sentence, word
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
            "Two-turn questions, rated from 1 to 10 by a judge or compared in pairs. A score is "
            "the mean over all turns that were rated; its interval counts questions as independent, not turns (cluster-"
            "robust, Student's t). Pairs are judged in "
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
        blocks += [Heading(f"Ratings by {judge}"), _score_table(rows), *_category_table(rows)]
        blocks += _difference_table([row for row in part.get("differences", ()) if row["judge"] == judge])
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
        values = [decimal(row["score"]), _ends(row), decimal(turns.get(1)), decimal(turns.get(2))]
        lines.append([row["model"], *values, count(row["n"]), count(row["unread"])])
    return Table("Mean rating over all turns", columns, lines)


def _category_table(rows: Sequence[Values]) -> list[Block]:
    """Mean rating by category, a row an agent, in the order of the scores."""
    names = list(dict.fromkeys(one["category"] for row in rows for one in row["by_category"]))
    if len(names) < 2:
        return []
    lines = []
    for row in sorted(rows, key=lambda row: -(row["score"] or 0)):
        found = {one["category"]: one["score"] for one in row["by_category"]}
        lines.append([row["model"], *(decimal(found.get(name)) for name in names)])
    sizes = {one["n"] for row in rows for one in row["by_category"] if one["n"]}
    few = (
        f" A mean rests on {count(min(sizes))} to {count(max(sizes))} ratings; intervals are in mtbench.csv."
        if sizes
        else ""
    )
    columns = [Column("Agent", "left", 1), *(Column(name.replace("_", " ")) for name in names)]
    return [Table("Mean rating by category", columns, lines, note=f"Both turns together.{few}")]


def _difference_table(rows: Sequence[Values]) -> list[Block]:
    """Every two agents on the same questions."""
    if not rows:
        return []
    columns = [Column("First", "left", 1), Column("Second", "left", 1), Column("Difference")]
    columns += [Column("95% together" if len(rows) > 1 else "95% interval"), Column("Questions")]
    columns.append(Column("p (Holm)" if len(rows) > 1 else "p"))
    lines = [
        [row["first"], row["second"], decimal(row["difference"]), _ends(row), count(row["questions"])]
        + [plain_p(row["p_holm"])]
        for row in rows
    ]
    strong = frozenset(place for place, row in enumerate(rows) if apart(row))
    note = (
        "First less second on the turns that both were rated on. Intervals count questions as independent and hold for"
        " all pairs together; p: sign flips of whole questions. Bold: told apart, by both."
    )
    return [Table("Agents compared on the same questions", columns, lines, strong, note)]


def apart(row: Values) -> bool:
    """Whether two agents' ratings can be told apart: by the test and by the interval."""
    return bool(row["p_holm"] < 0.05 and not row["low"] <= 0 <= row["high"])


def _ends(row: Values) -> str:
    return f"{decimal(row['low'])} to {decimal(row['high'])}" if row["low"] is not None else DASH


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
                [decimal(rating["rating"], 0), f"{decimal(rating['low'], 0)} to {decimal(rating['high'], 0)}"]
                if rating
                else [DASH, DASH]
            )
            rate = percent(one["win_rate"]) if one["win_rate"] is not None else DASH
            lines.append([one["model"], rate, *(count(one[k]) for k in ("wins", "ties", "losses", "unread")), *told])
        note = "A tie is half a win. Bradley-Terry on Elo's scale around 1000: 400 points are odds of ten to one."
        blocks += [
            Heading(f"Comparisons by {row['judge']}{_which_turns(row)}"),
            Table("Each against the others", columns, lines, note=note),
        ]
    return blocks


def _history(part: Values) -> list[Block]:
    if not part["history"]:
        return []
    columns = [Column("Agent", "left", 1), Column("Judge", "left", 1), Column("Turn"), Column("Difference")]
    columns += [Column("95% interval"), Column("Questions")]
    rows = [
        [row["model"], row["judge"], str(row["turn"]), decimal(row["difference"])] + [_ends(row), count(row["n"])]
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


def _which_turns(row: Values) -> str:
    """Return ``, turn 1 only`` where comparisons are of one turn alone."""
    turns: Sequence[int] = row.get("turns") or ()
    return f", turn {turns[0]} only" if len(turns) == 1 else ""


def _findings(part: Values) -> list[Finding]:
    findings = []
    for judge in dict.fromkeys(row["judge"] for row in part["scores"]):
        rated = [row for row in part["scores"] if row["judge"] == judge and row["score"] is not None]
        if not rated:
            text = f"On MT-Bench, no rating by {judge} could be read: it does not work as a judge."
            findings.append(Finding("0", text, 50, alarm=True))
            continue
        findings.append(_best_agent(judge, rated, part.get("differences") or ()))
    findings += [_best_in_pairs(row) for row in part["pairwise"] if row["win_rates"]]
    return findings + [found for row in part["bias"] for found in bias_findings(row)]


def _best_agent(judge: str, rated: Sequence[Values], differences: Sequence[Values]) -> Finding:
    """Say which agent has the highest mean, and which others cannot be told apart from it."""
    best = max(rated, key=lambda row: row["score"])
    turns = [one["turn"] for one in best["by_turn"] if one["n"]]
    only = f" (turn {turns[0]} only)" if len(turns) == 1 else ""
    ends = f"95%: {_ends(best)}" if best["low"] is not None else "no interval from one question"
    text = f"On MT-Bench{only}, {best['model']} is rated {decimal(best['score'])} of 10 on average by {judge} ({ends})"
    if len(rated) > 1:
        text += f", the highest of {word(len(rated))} agents. "
        text += _against_others(best["model"], [row for row in differences if row["judge"] == judge])
    else:
        text += "."
    unread = sum(row["unread"] for row in rated)
    text += f" {sentence(plural(unread, 'rating'))} could not be read." if unread else ""
    return Finding(decimal(best["score"]), text, 55)


def _against_others(best: str, rows: Sequence[Values]) -> str:
    mine = [row for row in rows if best in (row["first"], row["second"])]
    if not mine:
        return "The differences to the others have not been tested in this summary."
    alike = [row for row in mine if not apart(row)]
    together = "95% for all pairs together" if len(rows) > 1 else "95%"
    told = [
        f"{row['second'] if row['first'] == best else row['first']} ({decimal(abs(row['difference']))}; {together}:"
        f" {_ends(row)})"
        for row in (alike or [min(mine, key=lambda row: abs(row["difference"]))])[:3]
    ]
    more = f" and {plural(len(alike) - 3, 'more agent')}" if len(alike) > 3 else ""
    if alike:
        return f"It cannot be told apart from {'; '.join(told)}{more}."
    return f"It is ahead of {'the other' if len(mine) == 1 else 'each of the others'}, by least of {told[0]}."


def _best_in_pairs(row: Values) -> Finding:
    """Name the agent that wins most comparisons, and whether its rating's interval leaves the next one out."""
    best, others = row["win_rates"][0], row["win_rates"][1:]
    only = _which_turns(row).removeprefix(", ")
    of = f"On MT-Bench ({only})" if only else "On MT-Bench"
    rate = percent(best["win_rate"]) if best["win_rate"] is not None else DASH
    text = (
        f"{of}, {best['model']} wins {rate} of its {plural(best['n'], 'comparison')} by {row['judge']}, ties as halves"
    )
    ratings = {one["model"]: one for one in row["bradley_terry"]}
    near = [one["model"] for one in others if one["model"] in ratings and best["model"] in ratings
            and ratings[one["model"]]["high"] >= ratings[best["model"]]["low"]]  # fmt: skip
    told = f"; the intervals of {listed(near)} overlap with its own" if near else ""
    return Finding(rate, f"{text}{told}.", 54)


SECTION = Section("mtbench", "How good the answers are as a judge rates them", _wanted, build)
