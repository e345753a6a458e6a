"""Writes what is installed as a CycloneDX bill of materials: ``python docker/sbom.py FILE``. No clock, no chance."""

import json
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

DPKG = Path("/var/lib/dpkg/status")


def python_part(found: Distribution) -> dict[str, Any]:
    """One Python package; its licence as the package states it."""
    name, version = found.metadata["Name"].lower().replace("_", "-"), found.version
    part = {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
    stated = found.metadata.get("License-Expression") or found.metadata.get("License") or ""
    if stated and len(stated) < 80:
        return part | {"licenses": [{"license": {"name": stated}}]}
    return part


def debian_parts() -> list[dict[str, Any]]:
    """The packages of the system below, where it is Debian."""
    if not DPKG.is_file():
        return []
    parts = []
    for entry in DPKG.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}"
            parts.append({"type": "library", "name": name, "version": version, "purl": purl})
    return parts


def bill() -> dict[str, Any]:
    """Everything that the running Python can import, and the system's packages."""
    parts = [python_part(found) for found in distributions() if found.metadata["Name"] != "llmjobs"]
    whole = sorted([*parts, *debian_parts()], key=lambda part: part["purl"])
    own = next((found.version for found in distributions(name="llmjobs")), "0")
    about = {"component": {"type": "application", "name": "llmjobs", "version": own}}
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": about, "components": whole}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill(), indent=1) + "\n", encoding="utf-8")
