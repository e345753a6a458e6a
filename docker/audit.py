"""Compares pins with the known vulnerabilities: ``python docker/audit.py SBOM REQUIREMENTS…``, where pip-audit is.

The bill of materials is checked against CycloneDX's own schema first. Exit code 0: every pin was looked up and none is
known to be vulnerable; 1: some are, or the bill is not valid; 2: not every pin could be looked up, which is no pass.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

VULNERABLE, NOT_KNOWN = 1, 2
COMMAND = (sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--no-deps")
COMMAND += ("--disable-pip",)


def main() -> None:
    """Check the bill, then the pins."""
    bill, *pins = sys.argv[1:]
    if wrong := schema_error(Path(bill)):
        _end(f"{bill}: is not valid CycloneDX: {wrong}", VULNERABLE)
    asked = [part for file in pins for part in ("-r", file)]
    ended = subprocess.run([*COMMAND, *asked], capture_output=True, text=True)
    line, code = verdict(ended.stdout, ended.stderr)
    _end(line, code)


def schema_error(bill: Path) -> str | None:
    """Say what is wrong with a bill of materials, or None."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = bill.read_text(encoding="utf-8")
    found = JsonStrictValidator(SchemaVersion.from_version(json.loads(text)["specVersion"])).validate_str(text)
    return None if found is None else " ".join(str(found).split())[:300]


def verdict(output: str, errors: str) -> tuple[str, int]:
    """Read what pip-audit wrote: the lines to print and the exit code."""
    try:
        parts: list[dict[str, Any]] = list(json.loads(output)["dependencies"])
    except (ValueError, LookupError, TypeError):
        said = next((line for line in reversed(errors.splitlines()) if line.strip()), "no reason given")
        return f"the pins are not checked: the vulnerability service cannot be reached ({said[:200]})", NOT_KNOWN
    skipped = [part["name"] for part in parts if "skip_reason" in part]
    bad = [part for part in parts if part.get("vulns")]
    lines = [
        f"{part['name']} {part['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'no version yet'}"
        for part in bad
        for one in part["vulns"]
    ]
    if not parts or skipped:
        names = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
        count = f"{len(skipped)} of {len(parts)} pins could not be looked up ({names or 'there are none'})"
        lines.append(f"the pins are not checked: {count}; run this where the vulnerability service can be reached")
    if bad:
        lines.append(f"{len(bad)} of {len(parts)} pins have known vulnerabilities")
        return "\n".join(lines), VULNERABLE
    if not parts or skipped:
        return "\n".join(lines), NOT_KNOWN
    return f"{len(parts)} pins, none with a known vulnerability", 0


def _end(line: str, code: int) -> None:
    print(line if code == 0 else f"audit: {line}", file=sys.stderr if code else sys.stdout)
    sys.exit(code)


if __name__ == "__main__":
    main()
