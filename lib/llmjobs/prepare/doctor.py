"""``doctor``: check what this machine can do, and whether it can run a manifest. Works offline."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from llmjobs.exit_codes import EXIT_ERROR, EXIT_OK
from llmjobs.manifest import Manifest
from llmjobs.prepare import doctor_machine as machine
from llmjobs.prepare import doctor_network as network
from llmjobs.prepare import doctor_prompts as prompts
from llmjobs.prepare.doctor_result import Check, CheckFunction, Checkup, run_check, to_json
from llmjobs.terminal_text import plural

CHECKS: tuple[CheckFunction, ...] = (
    machine.check_packages,
    machine.check_engines,
    machine.check_processor,
    machine.check_memory,
    machine.check_devices,
    machine.check_number_formats,
    machine.check_quantization,
    machine.check_agreement,
    network.check_network,
    network.check_token,
    network.check_models,
    prompts.check_prompts,
    network.check_endpoints,
    machine.check_manifest_precisions,
    network.check_data,
    machine.check_disk,
    machine.check_results_folder,
    machine.check_clocks,
    machine.check_energy,
)
MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


def run(study: Manifest | None, results: Path, *, as_json: bool = False) -> int:
    """Check the machine and print one line per check; returns 1 if something required is missing."""
    checks = run_checks(study, results)
    click.echo(json.dumps(to_json(checks), ensure_ascii=False, indent=2) if as_json else render(checks))
    return EXIT_ERROR if any(check.status == "failed" for check in checks) else EXIT_OK


def run_checks(study: Manifest | None, results: Path) -> list[Check]:
    """Run every check."""
    checkup = Checkup(study, results)
    checkup.hub_silent = network.hub_silence()
    with network.from_the_cache(checkup.hub_silent):
        machine.probe(checkup)
        return [check for one in CHECKS for check in run_check(one, checkup)]


def render(checks: Sequence[Check]) -> str:
    """One line per check, then the counts."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        remedy = f"; {check.remedy}" if check.remedy else ""
        lines.append(f"{MARKS[check.status]}  {check.name.ljust(width)}  {check.line}{remedy}")
    counts = [sum(check.status == status for check in checks) for status in ("ok", "warning", "failed")]
    ok, warnings, failed = counts
    return "\n".join([*lines, f"{ok} ok, {plural(warnings, 'warning')}, {failed} failed"])
