"""The matrix on the terminal: the ladder or the grid, why cells have no figures, and which answers change."""

from collections.abc import Sequence

from llmjobs.matrix.ladder import Ladder, Rung
from llmjobs.matrix.summary import Flips, cell_names, find_flips
from llmjobs.records import DONE, CellResult, Spread
from llmjobs.terminal_text import DASH, fixed, gib, seconds, table


def render_matrix(cells: Sequence[CellResult]) -> str:
    """The grid, why cells have no figures, which answers change, and what the columns mean."""
    named = list(zip(cells, cell_names(cells), strict=True))
    done = [(cell, name) for cell, name in named if cell.repetitions]
    ladder = Ladder.of(cells)
    lines = render_ladder(ladder)
    plain = [(cell, name) for cell, name in done if not cell.precision]
    lines += table([HEADER, *(_row(cell, name) for cell, name in plain)]) if plain else []
    lines += [f"{name}: {cell.status}: {cell.reason}" for cell, name in named if cell.reason]
    lines += [f"{name}: the repetitions gave different answers" for cell, name in done if not cell.repetitions_agree]
    lines += [f"{name}: {remark}" for cell, name in done for remark in cell.remarks]
    several = len({cell.model for cell in cells}) > 1
    lines += [_flip_line(flip, several) for flip in find_flips(cells) if not flip.cell.precision]
    lines += _missing_figures([cell for cell, _ in done])
    if done:
        counts = sorted({cell.repetitions for cell, _ in done})
        lines.append(
            f"Medians of {' or '.join(map(str, counts))} repetitions. Like those of 'time', real and CPU time cover the"
            " whole process. CPU is user + system time of all threads, so it can exceed real time."
        )
    return "\n".join(lines)


HEADER = (
    "cell", "weights", "load", "real", "CPU", "GPU", "first token", "prefill t/s", "decode t/s",
    "questions/s", "accuracy (95% interval)", "memory", "J/1000 q",
)  # fmt: skip


def _row(cell: CellResult, name: str) -> tuple[str, ...]:
    return (
        f"{name} ({cell.dtype})",
        gib(cell.value("weight_bytes")),
        seconds(cell.value("load_s")),
        _spread(cell.measures.get("real_s")),
        seconds(cell.cpu_s),
        seconds(cell.value("gpu_s")),
        seconds(cell.value("ttft_s")),
        speed(cell.value("prefill_tokens_per_s")),
        speed(cell.value("decode_tokens_per_s")),
        speed(cell.value("questions_per_s")),
        accuracy(cell),
        gib(cell.memory_bytes),
        speed(cell.value("joules_per_1000_questions")),
    )


def _spread(found: Spread | None) -> str:
    if found is None or found.n < 2:
        return seconds(None if found is None else found.median)
    return f"{seconds(found.median)} ({found.low:.1f}–{found.high:.1f})"


def _flip_line(flip: Flips, several: bool) -> str:
    result, model = flip.result, f"{flip.cell.model} " if several else ""
    return (
        f"{model}{flip.cell.row} against {flip.against.row}: {flip.changed} of {result.n} answers changed "
        f"({result.only_second} lost, {result.only_first} gained, {100 * result.difference:+.1f} points, "
        f"p = {result.p:.3f})"
    )


def _missing_figures(done: Sequence[CellResult]) -> list[str]:
    """One line for each reason that figures are missing."""
    reasons: dict[str, dict[str, None]] = {}
    for cell in done:
        for name, why in cell.reasons.items():
            reasons.setdefault(f"{name} {DASH}: {why}", {})[cell.row] = None
    return [line if len(rows) == len(done) else f"{', '.join(rows)}: {line}" for line, rows in reasons.items()]


LADDER_HEADER = (
    "precision", "engine", "on disk", "memory", "load", "prefill t/s", "decode t/s", "questions/s",
    "accuracy (95% interval)", "changed", "p (Holm)",
)  # fmt: skip


def render_ladder(ladder: Ladder) -> list[str]:
    """The ladder's table for the terminal, and what its last columns compare with."""
    if not ladder.rungs:
        return []
    source = next(
        (one for one in ("text", "prompts") if any(one in rung.cell.divergence for rung in ladder.rungs)), None
    )
    more = (f"KL ({source})", "same top token") if source else ()
    lines = table(
        [
            (*LADDER_HEADER, *more),
            *((*_ladder_row(rung), *(_divergence(rung, source) if source else ())) for rung in ladder.rungs),
        ]
    )
    against = dict.fromkeys(rung.flips.against.row for rung in ladder.rungs if rung.flips)
    if against:
        lines.append(
            f"changed: answers that differ from {', '.join(against)}; p: McNemar's exact test, adjusted for the number"
            " of rows (Holm)"
        )
    if source:
        lines.append(
            f"KL: mean KL divergence of the next token's distribution from the reference's over the {source}, in nats"
        )
    lines += [f"{rung.name}: {rung.cell.tokens_differ}" for rung in ladder.rungs if rung.cell.tokens_differ]
    lines += [f"{rung.name}: no divergence: {why}" for rung in ladder.rungs if (why := rung.cell.divergence_reason)]
    if not against and not any(cell.is_reference and cell.status == DONE for cell in ladder.cells):
        lines.append("The reference precision has no result, so there is nothing to compare the others with.")
    return lines


def _ladder_row(rung: Rung) -> tuple[str, ...]:
    cell = rung.cell
    return (
        rung.name,
        cell.engine,
        gib(cell.value("file_bytes")),
        gib(cell.memory_bytes),
        seconds(cell.value("load_s")),
        speed(rung.prefill),
        speed(rung.decode),
        speed(cell.value("questions_per_s")),
        accuracy(cell),
        f"{rung.flips.changed} of {rung.flips.result.n}" if rung.flips else DASH,
        DASH if rung.p_holm is None else fixed(rung.p_holm, 3),
    )


def _divergence(rung: Rung, source: str) -> tuple[str, str]:
    """Mean divergence from the reference in nats, and the share of positions with the same most likely token."""
    found = rung.cell.divergence.get(source) or {}
    mean, same = ((found.get(name) or {}).get("value") for name in ("mean", "same_top"))
    return DASH if mean is None else f"{mean:.2g}", DASH if same is None else f"{same:.1%}"


def accuracy(cell: CellResult) -> str:
    """The share of right answers with its interval."""
    found = cell.accuracy
    return DASH if found is None else f"{found.value:.1%} ({found.low:.1%}–{found.high:.1%})"


def speed(value: float | None) -> str:
    """A rate with three digits."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
