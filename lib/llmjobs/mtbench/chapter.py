"""The report's chapter on MT-Bench: scores, a radar by category, comparisons, and the reliability of the judges."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Plot

from llmjobs.changed_prompts import empty_text, thinking_cut_text
from llmjobs.report import figure_style
from llmjobs.report.blocks import Block, Column, Content, Figure, Finding, Heading, Prose, Section, Table
from llmjobs.report.figure_style import short_names
from llmjobs.report.measure import Measures
from llmjobs.report.numbers import count, decimal, interval, p_value, percent, plain_p
from llmjobs.report.read.json_files import read_lines
from llmjobs.report.study import RawRun
from llmjobs.report.wording import DASH, listed, plural, sentence, word
from llmjobs.report.write.notes import QUALITY

# The judges: share of readable judgments, agreement, biases, imported files.

Values = Mapping[str, Any]


def judge_blocks(part: Values) -> list[Block]:
    """Tables about the judges; empty if there is no data on them."""
    blocks: list[Block] = [Heading("How reliable the judges are")]
    columns = [
        Column("Judge", "left", 1),
        Column("Mode", "left"),
        Column("Judgments"),
        Column("Read"),
        Column("Unread"),
    ]
    columns += [Column("Failed"), Column("No answer"), Column("Asked again")]
    keys = ("n", "ok", "unread", "error", "not_judged", "asked_again")
    rows = [[row["judge"], row["mode"], *(count(row[key]) for key in keys)] for row in part["judges"]]
    if rows:
        weak = sum(row.get("single_brackets") or 0 for row in part["judges"])
        note = (
            f"{plural(weak, 'rating is', 'ratings are')} in single brackets only. FastChat accepts these,"
            " and so does llmjobs, but such a number may be code, for example a[1], instead of a rating."
            if weak
            else ""
        )
        cut = [
            f"{row['judge']} ({row['mode']}): {thinking_cut_text(row['thinking_cut'], 'judgment')}."
            for row in part["judges"]
            if row.get("thinking_cut")
        ]
        note = " ".join([note, *cut]).strip()
        blocks.append(Table("Judgments that could be parsed", columns, rows, note=note))
    blocks += [*_agreement(part["agreement"]), *_bias(part["bias"]), *_files(part["files"])]
    return blocks if len(blocks) > 1 else []


def _agreement(part: Values) -> list[Block]:
    rows = [
        [
            f"{row['first']} and {row['second']}",
            count(row["n"]),
            decimal(row["spearman"]),
            decimal(row["mean_difference"]),
            _decimals(row, "mean_difference"),
        ]
        + [percent(row["within_one"]), _shares(row, "within_one")]
        for row in part["ratings"]
    ]
    blocks: list[Block] = []
    if rows:
        columns = [
            Column("Judges", "left", 1),
            Column("Answers"),
            Column("Spearman"),
            Column("Difference"),
            Column("95% interval"),
            Column("Within 1"),
            Column("95% interval"),
        ]
        blocks.append(Table("Agreement rating by rating", columns, rows))
    rows = [
        [name, count(row["n"]), percent(row["all"]), _shares(row, "all"), count(row["n_decided"])]
        + [percent(row["decided"]) if row["decided"] is not None else DASH, _shares(row, "decided")]
        for name, row in [
            *((f"{row['first']} and {row['second']}", row) for row in part["preferences"]),
            *((f"{row['judge']} and people", row) for row in part["votes"]),
        ]
    ]
    if rows:
        columns = [
            Column("Preferences of", "left", 1),
            Column("Pairs"),
            Column("Same"),
            Column("95% interval"),
            Column("Decided"),
            Column("Same"),
            Column("95% interval"),
        ]
        note = (
            "The first share counts a tie as a third verdict; the second is over pairs on which both chose a winner (at"
            " random: 50%). Intervals treat questions as independent."
        )
        blocks.append(Table("Agreement preference by preference", columns, rows, note=note))
    return blocks


def _shares(row: Values, name: str) -> str:
    """The interval of a share; a dash if the summary has none."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return DASH if low is None or high is None else interval(max(low, 0.0), min(high, 1.0))


def _decimals(row: Values, name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return DASH if low is None or high is None else f"{decimal(low)} to {decimal(high)}"


def _bias(rows: Sequence[Values]) -> list[Block]:
    lines = []
    for row in rows:
        position, length, own = row["position"], row["length"], row["self"]
        turned = f"{count(position['flipped'])} of {count(position['n'])}" if position and position["n"] else DASH
        places = f"{position['to_first_place']} : {position['to_second_place']}" if position else DASH
        by_length = (
            f"{decimal(length['spearman'])} ({p_value(length['p'])})" if length["spearman"] is not None else DASH
        )
        longer = f"{length['longer_won']} of {length['n_decided']}" if length["n_decided"] else DASH
        preference = decimal(own["preference"]) if own and own["preference"] is not None else DASH
        lines.append([row["judge"], turned, places, by_length, longer, preference])
    if not lines:
        return []
    columns = [Column("Judge", "left", 1), Column("Turned"), Column("1st : 2nd"), Column("Length and rating")]
    columns += [Column("Longer won"), Column("Own answers")]
    note = (
        "Turned: verdicts that changed when the order was swapped. 1st : 2nd: those that chose the first or the second "
        "position both times. Length and rating: rank correlation within questions, p by permutation within questions. "
        "Own answers: points by which a judge rates its own model higher than the other judges do; a dash if no other "
        "judge rated the same answers."
    )
    return [Table("Biases of the judges", columns, lines, note=note)]


def bias_findings(row: Values) -> list[Finding]:
    """Sentences for the first page: how often order changes a verdict, and whether longer answers are rated higher."""
    found = []
    judge, position, length = row["judge"], row["position"], row["length"]
    if position and position["n"]:
        share = position["flipped"] / position["n"]
        place = ""
        if position["p"] is not None and position["p"] < 0.05:
            first = position["to_first_place"] > position["to_second_place"]
            place = (
                f" Turned verdicts favour the answer shown {'first' if first else 'second'}"
                f" ({count(position['to_first_place'])} to {count(position['to_second_place'])};"
                f" {p_value(position['p'])})."
            )
        text = (
            f"On MT-Bench, {count(position['flipped'])} of {plural(position['n'], 'verdict')} of {judge}"
            f" ({percent(share, 0)}) change when the two answers swap places.{place}"
        )
        found.append(Finding(percent(share, 0), text, 53))
    if length["spearman"] is not None and length["p"] < 0.05:
        way = "longer" if length["spearman"] > 0 else "shorter"
        text = (
            f"On MT-Bench, {judge} rates the {way} of the answers to one question higher (rank correlation of length"
            f" and rating within questions {decimal(length['spearman'])}, {p_value(length['p'])}). This does not show"
            " whether the cause is the length or the quality of the answers."
        )
        found.append(Finding(decimal(length["spearman"]), text, 52))
    return found


def _files(rows: Sequence[Values]) -> list[Block]:
    if not rows:
        return []
    keys = ("lines", "unread_lines", "duplicates", "pairs", "flips", "other_questions")
    columns = [Column("File", "left", 1), Column("Lines"), Column("No score"), Column("Duplicates"), Column("Pairs")]
    columns += [Column("Turned"), Column("Other questions")]
    lines = [[row["file"], *(count(row[key]) for key in keys)] for row in rows]
    note = "Of duplicates, the last one with a score counts. summary.json also has the means over all lines."
    return [Table("Judgments read from files", columns, lines, note=note)]


COLOURS = (
    figure_style.BLUE,
    figure_style.ORANGE,
    figure_style.GREEN,
    figure_style.PURPLE,
    figure_style.INK,
    figure_style.MUTED,
)
DASHES = ("-", "--", ":", "-.")
MOST_AGENTS = 12
"""Maximum number of lines; more cannot be distinguished on a radar."""


def radar(rows: Sequence[Values], categories: Sequence[str]) -> Plot:
    """One line per agent over the categories, with a gap at a category without a rating."""
    total, rows = len(rows), rows[:MOST_AGENTS]
    names = short_names([str(row["model"]) for row in rows], 30)
    angles = np.linspace(0, 2 * np.pi, len(categories), endpoint=False)
    with figure_style.styled():
        figure = figure_style.blank(3.6)
        axes = figure.add_subplot(projection="polar")
        for place, row in enumerate(rows):
            found = {part["category"]: part["score"] for part in row["by_category"]}
            values = [np.nan if found.get(name) is None else float(found[name]) for name in categories]
            axes.plot(
                [*angles, angles[0]],
                [*values, values[0]],
                DASHES[place // len(COLOURS) % len(DASHES)],
                color=COLOURS[place % len(COLOURS)],
                marker="o",
                markersize=2.8,
                label=names[place],
            )
        axes.set_xticks(angles, categories)
        axes.set_ylim(1, 10)
        axes.set_yticks([2, 4, 6, 8, 10])
        axes.grid(visible=True)
        figure.legend(loc="outside right upper")
        if len(rows) < total:
            figure_style.say(figure, f"The first {len(rows)} of {total:,} agents.")
    return figure


def score_against_tokens(rows: Sequence[Values], lengths: Mapping[str, float]) -> Plot:
    """Mean rating with its interval against tokens per turn, one point per agent."""
    names = short_names([str(row["model"]) for row in rows], 30)
    with figure_style.styled():
        figure = figure_style.blank(2.6)
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            x, y = lengths[row["model"]], row["score"]
            ends = [[max(y - row["low"], 0)], [max(row["high"] - y, 0)]]
            axes.errorbar(
                [x], [y], ends, fmt="o", markersize=4, color=COLOURS[place % len(COLOURS)], label=names[place]
            )
        axes.set_xlabel("tokens per turn")
        axes.set_ylabel("mean rating")
        axes.set_ylim(1, 10)
        axes.grid(axis="y")
        if len(rows) <= MOST_AGENTS * 2:
            figure.legend(loc="outside right upper")
    return figure


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
    """Tables and figures on the judges and agents of every run."""
    blocks: list[Block] = [
        Prose(
            "A judge rates the answers to two-turn questions from 1 to 10 or compares them in pairs. A score is the"
            " mean over all rated turns. Its interval treats questions as independent, not turns (cluster-robust,"
            " Student's t). Pairs are judged in both orders; if the two verdicts disagree, the result is a tie. If a"
            " judgment cannot be parsed, the judge is asked once more; if that fails too, it counts as unread and is"
            " not part of any mean. Answers that failed are not judged."
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
    """Warn about judges of whose judgments more than a tenth could not be parsed or failed."""
    found: list[Block] = []
    for row in part["judges"]:
        asked = row["n"] - row["not_judged"]
        lost = row["unread"] + row["error"]
        if asked and lost / asked > 0.1:
            text = (
                f"{count(lost)} of {count(asked)} judgments by {row['judge']} ({row['mode']}) could not be parsed "
                "or failed. Do not rely on the scores of this judge; they are computed from the rest."
            )
            found.append(Prose(text, kind="alarm"))
    return found


def _agents(part: Values) -> Table:
    columns = [
        Column("Agent", "left", 1),
        Column("Kind", "left"),
        Column("Complete answers"),
        Column("Failed"),
        Column("Cut off"),
        Column("Tokens per turn"),
        Column("Characters per turn"),
    ]
    rows = []
    for row in part["agents"]:
        turns = row["turns"]
        tokens = f"{row['tokens_new'] / turns:,.0f}" if turns and row["tokens_new"] is not None else DASH
        characters = f"{row['characters'] / turns:,.0f}" if turns else DASH
        kind = row["kind"] + ("" if row["history"] else ", no history")
        counts = [count(row[key]) for key in ("answered", "errors", "cut_off")]
        rows.append([row["model"], kind, *counts, tokens, characters])
    empty = [f"{row['model']}: {empty_text(row['empty'])}." for row in part["agents"] if row.get("empty")]
    cut = [
        f"{row['model']}: {thinking_cut_text(row['thinking_cut'])}."
        for row in part["agents"]
        if row.get("thinking_cut")
    ]
    note = " ".join(["Cut off: turns that reached the maximum answer length.", *empty, *cut])
    return Table("Agents", columns, rows, note=note)


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
        caption = "Mean rating by category, 1 at the centre and 10 at the rim, one line per agent."
        if len(part["categories"]) > 2:
            draw = partial(radar, rated, part["categories"])
            blocks.append(Figure(f"mtbench-radar-{place}-{number}", caption, draw))
        both = [row for row in rated if row["model"] in lengths]
        if len(both) > 1:
            caption = (
                "Score against the length of the answers. Imported answers have no token counts and are not shown."
            )
            draw = partial(score_against_tokens, both, lengths)
            blocks.append(Figure(f"mtbench-tokens-{place}-{number}", caption, draw))
    return blocks


def _score_table(rows: Sequence[Values]) -> Table:
    columns = [Column("Agent", "left", 1), Column("Score"), Column("95% interval"), Column("Turn 1"), Column("Turn 2")]
    columns += [Column("Rated"), Column("Not rated")]
    ordered = sorted(rows, key=lambda row: -(row["score"] or 0))
    lines = []
    for row in ordered:
        turns = {part["turn"]: part["score"] for part in row["by_turn"]}
        values = [decimal(row["score"]), _ends(row), decimal(turns.get(1)), decimal(turns.get(2))]
        lines.append([row["model"], *values, count(row["n"]), count(row["unread"])])
    return Table("Mean rating over all turns", columns, lines)


def _category_table(rows: Sequence[Values]) -> list[Block]:
    """Mean rating by category, one row per agent, in the order of the scores."""
    names = list(dict.fromkeys(one["category"] for row in rows for one in row["by_category"]))
    if len(names) < 2:
        return []
    lines = []
    for row in sorted(rows, key=lambda row: -(row["score"] or 0)):
        found = {one["category"]: one["score"] for one in row["by_category"]}
        lines.append([row["model"], *(decimal(found.get(name)) for name in names)])
    sizes = {one["n"] for row in rows for one in row["by_category"] if one["n"]}
    few = (
        f" Each mean is over {count(min(sizes))} to {count(max(sizes))} ratings; intervals are in mtbench.csv."
        if sizes
        else ""
    )
    columns = [Column("Agent", "left", 1), *(Column(name.replace("_", " ")) for name in names)]
    return [Table("Mean rating by category", columns, lines, note=f"Both turns together.{few}")]


def _difference_table(rows: Sequence[Values]) -> list[Block]:
    """Every pair of agents on the same questions."""
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
        "First minus second, over the turns on which both were rated. Intervals treat questions as independent and hold"
        " for all pairs together. p: sign-flip test over questions. Bold: the two can be told apart by test and"
        " interval."
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
            ends = (
                [decimal(rating["rating"], 0), f"{decimal(rating['low'], 0)} to {decimal(rating['high'], 0)}"]
                if rating
                else [DASH, DASH]
            )
            rate = percent(one["win_rate"]) if one["win_rate"] is not None else DASH
            lines.append([one["model"], rate, *(count(one[k]) for k in ("wins", "ties", "losses", "unread")), *ends])
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
    note = "Rating with history minus rating without, on the same questions. Turn 1 has no history and shows the noise."
    return [Heading("With and without history"), Table("What history adds", columns, rows, note=note)]


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
    """Return ``, turn 1 only`` if only one turn was compared."""
    turns: Sequence[int] = row.get("turns") or ()
    return f", turn {turns[0]} only" if len(turns) == 1 else ""


def _findings(part: Values) -> list[Finding]:
    findings = []
    for judge in dict.fromkeys(row["judge"] for row in part["scores"]):
        rated = [row for row in part["scores"] if row["judge"] == judge and row["score"] is not None]
        if not rated:
            findings.append(Finding("0", _no_rating(judge, part["judges"]), 50, alarm=True))
            continue
        failed = sum(row["error"] for row in part["judges"] if (row["judge"], row["mode"]) == (judge, "single"))
        findings.append(_best_agent(judge, rated, part.get("differences") or (), failed))
    findings += [_best_in_pairs(row) for row in part["pairwise"] if row["win_rates"]]
    return findings + [found for row in part["bias"] for found in bias_findings(row)]


def _no_rating(judge: str, judges: Sequence[Values]) -> str:
    """Say that a judge gave no rating: because none could be parsed, or because every call failed."""
    own = [row for row in judges if (row["judge"], row["mode"]) == (judge, "single")]
    if any(row["error"] for row in own) and not any(row["unread"] for row in own):
        return f"On MT-Bench, {judge} gave no rating: every call to it failed. Run the job again to repeat them."
    return f"On MT-Bench, no rating by {judge} could be parsed: it does not work as a judge."


def _best_agent(judge: str, rated: Sequence[Values], differences: Sequence[Values], failed: int) -> Finding:
    """Say which agent has the highest mean, and which others cannot be told apart from it."""
    best = max(rated, key=lambda row: row["score"])
    turns = [one["turn"] for one in best["by_turn"] if one["n"]]
    only = f" (turn {turns[0]} only)" if len(turns) == 1 else ""
    ends = f"95%: {_ends(best)}" if best["low"] is not None else "no interval from one question"
    text = f"On MT-Bench{only}, {best['model']} is rated {decimal(best['score'])} of 10 on average by {judge} ({ends})"
    level = [row["model"] for row in rated if row["score"] == best["score"] and row is not best]
    if level:
        text += f", and so {'is' if len(level) == 1 else 'are'} {listed(level)}. "
        text += _against_others(best["model"], [row for row in differences if row["judge"] == judge])
    elif len(rated) > 1:
        text += f", the highest of {word(len(rated))} agents. "
        text += _against_others(best["model"], [row for row in differences if row["judge"] == judge])
    else:
        text += "."
    lost = sum(row["unread"] for row in rated)
    text += f" {sentence(plural(lost, 'rating'))} could not be parsed{' or failed' if failed else ''}." if lost else ""
    return Finding(decimal(best["score"]), text, 55)


def _against_others(best: str, rows: Sequence[Values]) -> str:
    mine = [row for row in rows if best in (row["first"], row["second"])]
    if not mine:
        return "This summary contains no tests of its differences from the others."
    alike = [row for row in mine if not apart(row)]
    together = "95% for all pairs together" if len(rows) > 1 else "95%"
    rivals = [
        f"{row['second'] if row['first'] == best else row['first']} ({decimal(abs(row['difference']))}; {together}:"
        f" {_ends(row)}{_p_beside(row)})"
        for row in (alike or [min(mine, key=lambda row: abs(row["difference"]))])[:3]
    ]
    more = f" and {plural(len(alike) - 3, 'more agent')}" if len(alike) > 3 else ""
    if alike:
        return f"It cannot be told apart from {'; '.join(rivals)}{more}."
    if len(mine) == 1:
        return f"It is ahead of {rivals[0]}."
    return f"It is ahead of each of the others; its smallest lead is over {rivals[0]}."


def _p_beside(row: Values) -> str:
    """The adjusted p if the interval alone suggests the opposite: with few questions no test can be significant."""
    disagree = row["low"] is not None and not row["low"] <= 0 <= row["high"] and not apart(row)
    return f", but {p_value(row['p_holm'])} after correction" if disagree and row.get("p_holm") is not None else ""


def _best_in_pairs(row: Values) -> Finding:
    """Name the agent that wins most comparisons, and the next ones unless its rating's interval excludes them."""
    best, others = row["win_rates"][0], row["win_rates"][1:]
    only = _which_turns(row).removeprefix(", ")
    of = f"On MT-Bench ({only})" if only else "On MT-Bench"
    rate = percent(best["win_rate"]) if best["win_rate"] is not None else DASH
    if others and all(one["win_rate"] == best["win_rate"] for one in others):
        text = f"{of}, no agent wins more comparisons by {row['judge']} than another: {rate} each, ties as halves."
        return Finding(rate, text, 54)
    text = (
        f"{of}, {best['model']} wins {rate} of its {plural(best['n'], 'comparison')} by {row['judge']}, ties as halves"
    )
    ratings = {one["model"]: one for one in row["bradley_terry"]}
    near = [one["model"] for one in others if one["model"] in ratings and best["model"] in ratings
            and ratings[one["model"]]["high"] >= ratings[best["model"]]["low"]]  # fmt: skip
    near_by = f"; the intervals of {listed(near)} overlap with its own" if near else ""
    return Finding(rate, f"{text}{near_by}.", 54)


SECTION = Section("mtbench", "How good the answers are, according to a judge", _wanted, build)
