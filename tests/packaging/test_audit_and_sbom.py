"""The audit never passes for want of an answer; the bill of materials has the form that it names."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PURL = re.compile(r"pkg:(pypi|deb/debian)/[a-z0-9][a-z0-9.+_-]*@[^\s@?]+(\?arch=\w+)?")


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "docker" / "audit.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLEAN = {"name": "a", "version": "1", "vulns": []}
BAD = {
    "name": "b",
    "version": "2",
    "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}, {"id": "CVE-2", "fix_versions": []}],
}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("parts", "code", "says"),
    [
        ([CLEAN], 0, "1 pins, none with a known vulnerability"),
        ([CLEAN, BAD], 1, "b 2: CVE-1, mended in 3\nb 2: CVE-2, mended in no version yet\n1 of 2 pins have known"),
        ([CLEAN, SKIPPED], 2, "the pins are not checked: 1 of 2 pins could not be looked up (c); run this where"),
        ([BAD, SKIPPED], 1, "1 of 2 pins could not be looked up"),
        ([], 2, "0 of 0 pins could not be looked up"),
    ],
)
def test_what_the_service_says(audit: ModuleType, parts: list[object], code: int, says: str) -> None:
    line, found = audit.verdict(json.dumps({"dependencies": parts}), "")
    assert (found, says in line) == (code, True), line


@pytest.mark.parametrize("output", ["", "[]", "{}", "null", "<html>", '{"dependencies": null}'])
def test_no_answer_is_one_clear_line_and_no_pass(audit: ModuleType, output: str) -> None:
    line, code = audit.verdict(output, "INFO\nERROR: Could not connect to PyPI's vulnerability feed\n\n")
    assert code == 2 and "\n" not in line
    assert line.startswith(
        "the pins are not checked: the vulnerability service cannot be reached (ERROR: Could not conn"
    )


def test_the_bill_of_materials(tmp_path: Path) -> None:
    texts = []
    for name in ("one.json", "two.json"):
        subprocess.run([sys.executable, ROOT / "docker" / "sbom.py", tmp_path / name], check=True)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    bill = json.loads(texts[0])
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert set(bill) <= {"bomFormat", "specVersion", "version", "metadata", "components"}
    assert bill["metadata"]["component"]["name"] == "llmjobs"
    names = {part["name"] for part in bill["components"]}
    assert {"torch", "transformers", "safetensors"} <= names and "llmjobs" not in names
    for part in bill["components"]:
        assert set(part) <= {"type", "name", "version", "purl", "licenses"}
        assert part["type"] == "library" and part["version"] and PURL.fullmatch(part["purl"]), part
    assert len({part["purl"] for part in bill["components"]}) == len(bill["components"])


def test_every_pin_is_in_it() -> None:
    """What is pinned is what is listed: a package that slips in by hand shows up as one too many."""
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "docker" / "sbom.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    listed = {part["name"].replace(".", "-") for part in module.bill()["components"]}
    text = (ROOT / "docker" / "requirements-run.txt").read_text()
    pins = {
        m[1].lower().replace("_", "-").replace(".", "-")
        for m in re.finditer(r"^([A-Za-z0-9_.-]+)(?:\[.*\])?==[^;\n]+$", text, re.M)
    }
    assert len(pins) > 20 and pins <= listed, sorted(pins - listed)
