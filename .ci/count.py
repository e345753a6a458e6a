"""Adds up pytest's reports: one closing line of counts; ends with 1 where anything failed or nothing ran."""

import sys
from pathlib import Path
from xml.etree import ElementTree

totals = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
for report in Path(sys.argv[1]).glob("*.xml"):
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):  # noqa: S314 - our own files
        for name in totals:
            totals[name] += int(suite.get(name, 0))
failed = totals["failures"] + totals["errors"]
passed = totals["tests"] - failed - totals["skipped"]
print(f"{passed} passed, {failed} failed, {totals['skipped']} skipped")
sys.exit(failed > 0 or passed == 0)
