"""Checks a bill of materials against CycloneDX's own schema: ``python docker/check_sbom.py FILE``."""

import json
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    found = JsonStrictValidator(SchemaVersion.from_version(json.loads(text)["specVersion"])).validate_str(text)
    if found is not None:
        sys.exit(f"{sys.argv[1]}: is not valid CycloneDX: {' '.join(str(found).split())[:300]}")
