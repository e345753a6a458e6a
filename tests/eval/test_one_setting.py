"""``quantization: 4bit`` from the manifest to the report, each station of its way."""

import csv
import json
import shutil
import subprocess

import pytest
import torch
import yaml

from llmjobs.cli import main
from llmjobs.engines.transformers.quantize import quantization_config
from llmjobs.errors import ManifestError
from llmjobs.make_report import make_report
from llmjobs.manifest import load_manifest
from llmjobs.work import checkpoint


def test_quantization_from_manifest_to_report(tmp_path, llama, mmlu_rows):
    manifest = tmp_path / "walk.yaml"
    benchmark = {"name": "mmlu", "subjects": ["astronomy"], "num_fewshot": 0, "data": str(mmlu_rows), "limit": 8}
    model = {"id": str(llama), "name": "m", "device": "cpu", "quantization": "4bit"}
    content = {"models": [model], "eval": {"benchmarks": [benchmark], "batch_tokens": 512}}
    manifest.write_text(yaml.safe_dump(content))

    assert load_manifest(manifest).models[0].quantization == "4bit"
    with pytest.raises(ManifestError, match=r"walk\.yaml:\d+: models\[0\]\.quantization: '4bits' is not one of"):
        load_manifest(manifest, ["models[0].quantization=4bits"])

    asked = quantization_config("4bit", torch.float32)
    assert (asked.load_in_4bit, asked.bnb_4bit_quant_type) == (True, "nf4")
    assert quantization_config("none", torch.float32) is None

    with pytest.raises(SystemExit) as ended:
        main(["eval", str(manifest), "--results", str(tmp_path / "r")])
    assert ended.value.code == 0
    run = tmp_path / "r" / "walk"
    state = checkpoint.load(run / "eval/m/mmlu.astronomy/checkpoint.pkl").state
    assert state["declared"]["quantization_asked"] == "4bit"
    assert state["effective"]["quantization"] == "4bit"
    assert json.loads((run / "eval/m/model.json").read_text())["quantization"] == "4bit"

    make_report([run], tmp_path / "report/report.pdf")
    rows = list(csv.DictReader((tmp_path / "report/summary.csv").read_text("utf-8").splitlines()))
    assert {row["quantization"] for row in rows} == {"4bit"}
    if pdftotext := shutil.which("pdftotext"):
        text = subprocess.run([pdftotext, tmp_path / "report/report.pdf", "-"], capture_output=True, text=True).stdout
        assert "4bit" in text
