"""The bill of materials has the form that it names, and lists every pin."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PURL = re.compile(r"pkg:(pypi|deb/debian)/[a-z0-9][a-z0-9.+_-]*@[^\s@?]+(\?arch=\w+)?")


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
