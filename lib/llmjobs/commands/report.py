"""``llmjobs report``: one PDF from the results of one or more runs."""

from pathlib import Path

import click


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not COLUMN=VALUE", param_hint=option)
    return pairs


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help=("The PDF to write; figures, tables and notes go beside it.  [default: report.pdf in the first folder]"),
)
@click.option("--html", is_flag=True, help="Write report.html too: every question with every model's answer.")
@click.option(
    "--budget",
    multiple=True,
    metavar="LIMIT",
    help="Recommend within memory=8GiB, time=1h, cpu=, gpu=, energy=.",
)
@click.option("--common", is_flag=True, help="Compare on the questions that all models were asked.")
@click.option("--any-prompt", is_flag=True, help="Compare across prompts, shots and versions; says what differs.")
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Take a part: study, run, model, device, quantization, metric, …",
)
@click.option("--questions", type=click.Path(path_type=Path), help="Folder of SUBJECT.csv: texts and answers.")
@click.option("--label-notes", type=click.Path(path_type=Path), help="Folder of MMLU-Redux's notes on wrong labels.")
@click.option("--name", help="Name of the benchmark in tables that have no such column.")
def command(
    results: tuple[Path, ...],
    output: Path | None,
    html: bool,
    budget: tuple[str, ...],
    common: bool,
    any_prompt: bool,
    where: tuple[str, ...],
    questions: Path | None,
    label_notes: Path | None,
    name: str | None,
) -> int:
    """Write one PDF on RESULTS: run folders, or logs of lm-eval, inspect_ai or HELM, or tables of answers.

    Accuracy with intervals, cost, paired differences, shared mistakes, patterns, and how all of it was
    made. Results that are not comparable are refused with what differs.
    """
    from llmjobs.errors import printable
    from llmjobs.report.job import make_report
    from llmjobs.report.measure.cost import parse_budget

    place = output or (results[0] if results[0].is_dir() else results[0].parent) / "report.pdf"
    made = make_report(
        results,
        place,
        html=html,
        budget=parse_budget(budget),
        common=common,
        any_prompt=any_prompt,
        where=_pairs(where, "--where"),
        questions=questions,
        label_notes=label_notes,
        name=name,
        progress=lambda line: click.echo(line, err=True),
    )
    for notice in made.notices:
        click.echo(printable(f"note: {notice}"), err=True)
    if made.partial:
        click.echo("note: the study is not finished; the report is marked as partial", err=True)
    for finding in made.findings[:5]:
        click.echo(printable(f"- {finding.sentence}"))
    click.echo(f"wrote {made.pdf} and {len(made.files) - 1} files beside it")
    return 0
