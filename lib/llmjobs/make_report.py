"""Make the report: read results, match their questions, measure, write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

from llmjobs import file_operations
from llmjobs.converse import chapter as converse_chapter
from llmjobs.errors import LlmjobsError, plain_reason
from llmjobs.matrix import grid_chapter, ladder_chapter
from llmjobs.mtbench import chapter as mtbench_chapter
from llmjobs.report.assemble import assemble
from llmjobs.report.blocks import Block, Figure, Finding, Section
from llmjobs.report.measure import Measures
from llmjobs.report.pdf.document import Chapter, Figures, FrontPage, make_pdf
from llmjobs.report.read.formats import read
from llmjobs.report.sections import accuracy, cost, differences, how_it_was_made, overlap, patterns, scores, stopped
from llmjobs.report.sections.accuracy import labels, leaderboard
from llmjobs.report.study import Notice, Study
from llmjobs.report.text.shaping import isolated, names_in
from llmjobs.report.wording import agree, listed, plural, sentence, word
from llmjobs.report.write.csv_files import write_long_tables, write_tables
from llmjobs.report.write.html import write_html
from llmjobs.report.write.notes import notes_text
from llmjobs.report.write.save_figures import draw_figures

ORDER: tuple[Section, ...] = (
    accuracy.SECTION,
    stopped.SECTION,
    scores.SECTION,
    cost.SECTION,
    ladder_chapter.SECTION,
    grid_chapter.SECTION,
    differences.SECTION,
    overlap.SECTION,
    patterns.SECTION,
    converse_chapter.SECTION,
    mtbench_chapter.SECTION,
    how_it_was_made.SECTION,
)
"""The chapters, in order. A new one is added here."""
FINDINGS_SHOWN = 8


@dataclass(frozen=True)
class ReportResult:
    """The files that were written, the findings, and notices on the input."""

    pdf: Path
    files: tuple[Path, ...]
    findings: tuple[Finding, ...]
    notices: tuple[Notice, ...]
    partial: bool


def make_report(
    paths: Sequence[Path],
    output: Path,
    *,
    html: bool = False,
    budget: Mapping[str, float] | None = None,
    common: bool = False,
    where: Mapping[str, str] | None = None,
    questions: Path | None = None,
    label_notes: Path | None = None,
    name: str | None = None,
    any_prompt: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ReportResult:
    """Write the report on ``paths`` to ``output`` (a PDF) and everything else beside it.

    ``budget`` maps memory, time, cpu, gpu, energy to bytes, seconds, joules. ``progress`` gets a line before each part
    of a long report. Each file is replaced in one step, so an earlier report is never mixed with a new one. The tables
    are written first and the PDF last, so a problem with a page loses no table or figure.

    Raises:
        DataError: nothing can be read, or the results are not comparable and neither ``common`` (if questions differ)
            nor ``any_prompt`` (if prompts, numbers of shots or versions differ) is set.

    """
    step = _Progress(progress)
    step("reading the results")
    runs = [run for path in paths for run in read(path, name)]
    study = assemble(
        runs,
        common=common,
        where=where,
        budget=budget,
        questions=questions,
        label_notes=label_notes,
        any_prompt=any_prompt,
    )
    measures = Measures(study)
    step.big(study)
    step(f"comparing {_size(study)}")
    contents = [(section, section.build(measures)) for section in ORDER if section.wanted(measures)]
    findings = rank([finding for _, content in contents for finding in content.findings])
    front = _front(measures, findings)
    with file_operations.clear_errors(output):
        file_operations.make_folder(output.parent)
    files = [*write_tables(measures, findings, output.parent), output.parent / "notes.md"]
    blocks: list[Block] = [*front.blocks, *(block for _, content in contents for block in content.blocks)]
    files += write_long_tables(blocks, output.parent)
    with isolated(names_in(study)):
        step(f"drawing {plural(sum(isinstance(block, Figure) for block in blocks), 'figure')}")
        figures = draw_figures(blocks, output.parent / "figures")
        answers = [note for _, content in contents for note in content.notes]
        notes = notes_text(study, front.title, findings, answers, blocks)
        file_operations.write_whole(output.parent / "notes.md", notes.encode("utf-8", "replace"))
        files += [output.parent / "figures" / f"{name}.{kind}" for name in figures for kind in ("pdf", "png")]
        if html:
            files.append(write_html(output.with_suffix(".html"), measures, front.title, findings, blocks))
        step("writing the PDF")
        file_operations.write_whole(
            output, _pdf(output, front, [Chapter(s.key, s.title, c.blocks) for s, c in contents], figures)
        )
    return ReportResult(output, (output, *files), tuple(findings), study.notices, study.partial)


def _pdf(output: Path, front: FrontPage, chapters: Sequence[Chapter], figures: Figures) -> bytes:
    """Lay out the pages; if that fails, raise an LlmjobsError that says which files are complete."""
    try:
        return make_pdf(front, chapters, figures)
    except Exception as error:
        raise LlmjobsError(
            f"{output}: the pages could not be laid out ({plain_reason(error)}), which is a fault of llmjobs."
            f" The tables (CSV), figures and notes of this report are complete in {output.parent}"
            + (f"; the {output.name} in that folder is from an earlier run" if output.exists() else "")
        ) from error


LONG_S = 3.0
BIG_ANSWERS, BIG_PAIRS = 200_000, 400


class _Progress:
    """Prints a line before each part of a report that is large or has already taken long."""

    def __init__(self, print_line: Callable[[str], None] | None) -> None:
        self.print_line, self.started_s, self.large = print_line, monotonic(), False

    def big(self, study: Study) -> None:
        """Store how much there is to do."""
        answers = sum(len(benchmark.rows) * benchmark.n for benchmark in study.benchmarks)
        self.large = answers > BIG_ANSWERS or _pairs(study) > BIG_PAIRS

    def __call__(self, what: str) -> None:
        """Announce the next part."""
        if self.print_line and (self.large or monotonic() - self.started_s > LONG_S):
            self.print_line(f"{what} …")


def _pairs(study: Study) -> int:
    return max((len(benchmark.rows) * (len(benchmark.rows) - 1) // 2 for benchmark in study.benchmarks), default=0)


def _size(study: Study) -> str:
    questions = sum(benchmark.n for benchmark in study.benchmarks)
    return f"{plural(len(study.entries), 'model')} ({plural(_pairs(study), 'pair')}) on {plural(questions, 'question')}"


def rank(findings: Sequence[Finding]) -> list[Finding]:
    """Order findings by weight; equal weights keep their order.

    Findings of the first page come first. Warnings get up to half of its places: with several benchmarks the sentences
    on who is best would fill it, and a model at chance or with unreadable replies would go unmentioned.
    """
    ordered = sorted(findings, key=lambda finding: -finding.weight)
    warnings = [finding for finding in ordered if finding.alarm][: FINDINGS_SHOWN // 2]
    others = [finding for finding in ordered if not any(finding is warning for warning in warnings)]
    chosen = [*warnings, *others[: FINDINGS_SHOWN - len(warnings)]]
    shown = [finding for finding in ordered if any(finding is one for one in chosen)]
    return [*shown, *(finding for finding in ordered if not any(finding is one for one in chosen))]


def _front(measures: Measures, findings: Sequence[Finding]) -> FrontPage:
    study, main = measures.study, measures.study.main
    blocks: list[Block] = []
    if main is not None:
        found = measures.accuracy[main.name]
        caption = (
            f"Accuracy on {main.name}: point and bar, micro accuracy with its 95% interval; ring, macro"
            " accuracy (every subject counts the same)."
        )
        blocks.append(Figure("leaderboard", caption, partial(leaderboard, found, labels(measures, found))))
    return FrontPage(_title(study), _subtitle(study), findings[:FINDINGS_SHOWN], blocks, _warning(study))


def _title(study: Study) -> str:
    models = len({entry.info.id for entry in study.entries})
    asked = [*(benchmark.name for benchmark in study.benchmarks), *(table.benchmark for table in study.graded)]
    names = listed(asked, limit=3)
    who = f"{sentence(word(models))} {agree(models, 'model', 'models')}"
    return f"{who} on {names}" if asked else f"Report on {study.title}"


def _subtitle(study: Study) -> list[str]:
    asked = sum(b.n for b in study.benchmarks) + sum(table.values.shape[1] for table in study.graded)
    lines = [listed(dict.fromkeys(entry.label for entry in study.entries), limit=6)]
    machines = listed(dict.fromkeys(str(e.machine.get("cpu")) for e in study.entries if e.machine.get("cpu")), limit=3)
    devices = listed(sorted({entry.info.device for entry in study.entries if entry.info.device}))
    parts = [f"{plural(asked, 'question')}, the same for every model"] if asked else []
    parts += [part for part in (f"on {devices}" if devices else "", machines) if part]
    return [*lines, " · ".join([*parts, f"from {study.title}"])]


def _warning(study: Study) -> str:
    parts = []
    if study.partial:
        parts.append("Partial: the study was not finished when this report was made.")
    if study.notices:
        number = len(study.notices)
        more = f" {plural(number - 1, 'more note')} under How it was made." if number > 1 else ""
        parts.append(f"Note on the input: {study.notices[0]}.{more}")
    return " ".join(parts)
