"""Doctor: every situation that people meet gives the one line that helps; no token in any of them."""

import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from llmjobs.cli import main
from llmjobs.demo import DEMO_MODELS
from llmjobs.engines.machine_probe import Machine, Verdict
from llmjobs.manifest import ModelSpec, load_manifest
from llmjobs.prepare import doctor_machine, doctor_network
from llmjobs.prepare.doctor import run_checks
from llmjobs.prepare.doctor_result import Checkup, layer_of, run_check
from llmjobs.quantization import METHODS

sys.path.append(str(Path(__file__).parents[1] / "hub"))

from hub_world import DATASET, GATED, MODEL, TOKEN, World, no_sleep, world  # noqa: E402

__all__ = ["no_sleep", "world"]
HERE = {"cpu": {"name": "CPU", "capability": "AVX512", "bfloat16": True}}
GPU = {
    "name": "Some GPU", "count": 1, "memory_bytes": 80 << 30, "free_bytes": 79 << 30, "capability": "9.0",
    "bfloat16": True, "uuid": "GPU-0",
}  # fmt: skip


def machine(broken=(), gpu=False, **parity) -> Machine:
    """What the probes found: a CPU, perhaps a GPU, some of it broken."""
    absent = {"cuda": {"reason": "no CUDA: this torch is built without it"}, "mps": {"reason": "no Apple GPU: Linux"}}
    found = Machine({**absent, **HERE, **({"cuda": GPU} if gpu else {})})
    kinds = [(dtype, "none") for dtype in ("auto", "float32", "bfloat16", "float16")] + [
        ("auto", "8bit"),
        ("auto", "4bit"),
        *(("auto", name) for name in METHODS if name not in ("8bit", "4bit")),
    ]
    for device in ("cuda", "mps", "cpu"):
        for dtype, quantization in kinds:
            ok = device in found.available() and (device, quantization) not in broken
            reason = "" if ok else f"{quantization} does not work on {device}: RuntimeError: no kernel"
            found.layers[device, dtype, quantization] = Verdict(ok, reason, "float32", 0.01)
    found.parity = parity
    return found


@pytest.fixture
def probed(monkeypatch):
    """Play the probes; returns how to set what they find."""

    def play(found: Machine) -> None:
        monkeypatch.setattr(doctor_machine, "probe_machine", lambda *_: found)

    play(machine())
    return play


@pytest.fixture
def study(tmp_path):
    def write(*models, **sections):
        path = tmp_path / "m.yaml"
        path.write_text(yaml.safe_dump({"models": list(models) or ["llmjobs/demo-base"], **sections}))
        return load_manifest(path)

    return write


def lines(study, tmp_path) -> dict[str, tuple[str, str]]:
    """Name of each check → its status, and its line with the remedy."""
    checks = run_checks(study, tmp_path / "results")
    text = json.dumps([check.to_record() for check in checks])
    assert TOKEN not in text and "hf_revoked" not in text and "\\n" not in text
    return {check.name: (check.status, f"{check.line}; {check.remedy}") for check in checks}


def test_no_token_and_a_gated_model(world: World, probed, study, tmp_path):
    found = lines(study({"id": GATED, "name": "gated"}), tmp_path)
    status, line = found["weights of gated"]
    assert status == "failed"
    assert (
        f"{GATED} is gated and there is no token; request access at {world.hub.url}/{GATED}, then run 'hf auth login'"
        in line
    )
    assert found["token"][0] == "ok" and "no token" in found["token"][1]


def test_a_wrong_token(world: World, probed, study, tmp_path):
    world.log_in("hf_revoked")
    status, line = lines(study(MODEL), tmp_path)["token"]
    assert status == "failed"
    assert "the token (from HF_TOKEN) is not valid" in line and "hf auth login" in line


def test_a_token_without_access(world: World, probed, study, tmp_path):
    world.log_in("hf_other")
    found = lines(study({"id": GATED, "name": "gated"}), tmp_path)
    assert found["token"] == ("ok", "from HF_TOKEN, account ben; ")
    status, line = found["weights of gated"]
    assert status == "failed" and f"does not have access yet; request it at {world.hub.url}/{GATED}" in line


def test_a_token_with_access(world: World, probed, study, tmp_path):
    world.log_in(TOKEN)
    found = lines(study({"id": GATED, "name": "gated"}), tmp_path)
    assert found["token"] == ("ok", "from HF_TOKEN, account ada; ")
    status, line = found["weights of gated"]
    assert status == "ok" and "gated, with access" in line and "to download" in line


def test_no_network(world: World, probed, study, tmp_path, no_sleep):
    world.patch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = lines(study({"id": MODEL, "name": "model"}, eval={"benchmarks": ["mmlu"]}), tmp_path)
    status, line = found["hub"]
    assert status == "failed"
    assert (
        "cannot be reached (Connection refused); working offline from the cache; check the network, proxy or firewall"
        in line
    )
    assert found["weights of model"][0] == found["rows of mmlu"][0] == "failed"
    assert "llmjobs fetch" in found["weights of model"][1] and DATASET in found["rows of mmlu"][1]
    assert no_sleep == [], "nothing waits for a network that is not there"
    assert lines(None, tmp_path)["hub"][0] == "warning"


def test_offline_by_choice(world: World, probed, study, tmp_path):
    world.go_offline()
    found = lines(study(), tmp_path)
    assert found["hub"][0] == "ok" and "HF_HUB_OFFLINE" in found["hub"][1]
    assert found["weights of demo-base"] == ("ok", "bundled; ")
    assert world.hub.seen == []


def test_a_full_disk(world: World, probed, study, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**6))
    found = lines(study(MODEL), tmp_path)
    status, line = found["disk (cache)"]
    assert (
        status == "failed"
        and "1.0 MB free for" in line
        and "to download" in line
        and "set HF_HOME to another disk" in line
    )
    assert found["disk (results)"][0] == "warning"


def test_results_that_cannot_be_written(world: World, probed, tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor_machine.tempfile, "TemporaryFile", full)
    status, line = lines(None, tmp_path)["results folder"]
    assert status == "failed" and "No space left on device" in line and "--results" in line


def test_a_model_whose_weights_fail_is_not_said_to_run(world: World, probed, study, tmp_path):
    found = lines(study({"id": "./nowhere", "name": "lost"}, {"id": "llmjobs/demo-base", "name": "here"}), tmp_path)
    assert found["weights of lost"][0] == found["model lost"][0] == "failed"
    assert "will run" not in found["model lost"][1] and "weights of lost" in found["model lost"][1]
    assert found["weights of here"][0] == "ok" and found["model here"][1].startswith("will run on CPU")


def test_a_wrong_name_is_told_apart(world: World, probed, study, tmp_path):
    status, line = lines(study({"id": "maker/tinny", "name": "typo"}), tmp_path)["weights of typo"]
    assert status == "failed" and "there is no model maker/tinny on the hub" in line and "check the spelling" in line


def test_a_device_that_a_model_asks_for(world: World, probed, study, tmp_path):
    found = lines(study({"id": "llmjobs/demo-base", "name": "m", "device": "cuda"}), tmp_path)
    assert found["CUDA"][0] == "failed" and "but m needs it; use device: auto or cpu for m" in found["CUDA"][1]
    assert lines(study(), tmp_path)["CUDA"] == ("ok", "not available: this torch is built without it; ")


def test_a_driver_without_a_torch_for_it(world: World, probed, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_machine, "_driver_is_here", lambda: True)
    status, line = lines(None, tmp_path)["CUDA"]
    assert status == "warning" and "an NVIDIA driver is installed" in line and "--gpus all" in line


def test_quantization_that_does_not_work(world: World, probed, study, tmp_path):
    probed(machine(broken=[("cpu", "4bit")]))
    assert lines(None, tmp_path)["CPU 4bit"][0] == "warning"
    found = lines(study({"id": "llmjobs/demo-base", "name": "m", "quantization": "4bit"}), tmp_path)
    assert found["CPU 4bit"][0] == "failed" and "no kernel, but m needs it" in found["CPU 4bit"][1]


def test_a_gpu_that_computes_something_else(world: World, probed, study, tmp_path):
    wrong = Verdict(False, figure=1.5)
    probed(machine(gpu=True, cuda=wrong))
    status, line = lines(study(), tmp_path)["CUDA against CPU"]
    assert status == "failed" and "differs by 1.5 nats; do not trust scores from this device" in line
    probed(machine(gpu=True, cuda=Verdict(True, figure=1e-5)))
    found = lines(study(), tmp_path)
    assert found["CUDA against CPU"][0] == "ok"
    assert "Some GPU, 80.00 GiB (79.00 GiB free), compute capability 9.0, supports bfloat16" in found["CUDA"][1]
    assert found["model demo-base"][1].startswith("will run on CUDA, not quantized")


def test_the_matrix_needs_nothing(world: World, probed, study, tmp_path):
    found = lines(study(matrix={"benchmarks": ["demo"]}), tmp_path)
    assert found["matrix"][0] == "ok" and found["matrix"][1].startswith("3 of 9 kinds of cells can run here")
    assert not [name for name, (status, _) in found.items() if status == "failed"]


def test_auto_settles_as_the_loader_does():
    auto, quantized = ModelSpec(id="llmjobs/demo-base"), ModelSpec(id="llmjobs/demo-base", quantization="4bit")
    assert layer_of(auto, ["mps", "cpu"])[0] == "mps"
    assert layer_of(quantized, ["mps", "cpu"])[0] == "cpu"
    assert layer_of(quantized, ["cuda", "cpu"])[0] == "cuda"


def test_a_check_that_breaks_is_a_line():
    def check_something_odd(_):
        raise KeyError("x")

    (found,) = run_check(check_something_odd, Checkup(None, Path("results")))
    assert (found.name, found.status) == ("something odd", "warning") and "could not be checked" in found.line


def test_packages_that_are_too_old(monkeypatch):
    installed = doctor_machine.version
    monkeypatch.setattr(doctor_machine, "version", lambda name: "0.1" if name == "torch" else installed(name))
    (found,) = doctor_machine.check_packages(Checkup(None, Path("results")))
    assert found.status == "failed" and "torch is 0.1, but " in found.line


def test_json_and_exit_codes(world: World, probed, tmp_path, capsys):
    def run(*arguments) -> int:
        with pytest.raises(SystemExit) as done:
            main(["doctor", *map(str, arguments), "--results", str(tmp_path / "r")])
        return int(done.value.code)

    assert run("demo", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["status"] in ("ok", "warning")
    assert {"name", "status", "line", "remedy"} == set(told["checks"][0])
    assert run("demo", "--set", "models=[{id: llmjobs/demo-base, device: cuda}]") == 1
    shown = capsys.readouterr().out
    assert "FAILED" in shown and shown.rstrip().endswith("failed")


@pytest.mark.slow
def test_this_machine(tmp_path, monkeypatch):
    """Nothing played: the probes run."""
    monkeypatch.setattr(doctor_network, "hub_silence", lambda: "nobody is asked in tests")
    checks = {check.name: check for check in run_checks(load_manifest("demo"), tmp_path)}
    assert checks["CPU number formats"].status == "ok"
    assert checks["CPU 8bit"].status == checks["CPU 4bit"].status == "ok"
    assert checks["packages"].status == "ok"


@pytest.mark.parametrize(("engine", "package"), [("vllm", "vllm"), ("llama.cpp", "gguf")])
def test_an_engine_that_is_not_installed(probed, tmp_path, monkeypatch, engine, package):
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump({"models": [{"id": "o/n", "name": "m", "engine": engine}]}))
    checkup = Checkup(load_manifest(path), tmp_path)
    monkeypatch.setattr(doctor_machine, "find_spec", lambda name: None)
    (check,) = run_check(doctor_machine.check_engines, checkup)
    assert (check.status, check.line) == ("failed", "not installed, but m needs it")
    assert f"pip install 'llmjobs[{package}]'" in check.remedy
    monkeypatch.setattr(doctor_machine, "find_spec", lambda name: object())
    assert run_check(doctor_machine.check_engines, checkup)[0].status == "ok"


def test_each_precision_of_one_repository_is_looked_at(probed, study, tmp_path):
    """A model whose files are refused at one precision is not said to run at another, nor the other way round."""
    folder = tmp_path / "stored"
    folder.mkdir()
    for file in DEMO_MODELS["demo-tiny"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    models = [
        {"id": str(folder), "name": "as-stored", "quantization": "4bit"},
        {"id": str(folder), "name": "other", "quantization": "8bit"},
    ]
    found = lines(study(*models), tmp_path)
    assert found["model as-stored"][0] == "ok"
    assert found["weights of other"][0] == "failed" and "is quantized already" in found["weights of other"][1]
    status, line = found["model other"]
    assert status == "failed" and "will run" not in line and "see weights of other" in line


def test_a_file_that_is_no_gguf_is_not_said_to_run(probed, study, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"not a model")
    found = lines(study({"id": str(tmp_path / "m.gguf"), "name": "m"}), tmp_path)
    assert found["weights of m"][0] == "failed" and "is not a GGUF file" in found["weights of m"][1]
    assert found["model m"][0] == "failed" and "will run" not in found["model m"][1]


def renamed(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = {key.replace("self_attn", "attention"): value for key, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


def reshaped(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = {key: value[:-1] if key.endswith("o_proj.weight") else value for key, value in load_file(path).items()}
    save_file({**weights, "spare": torch.zeros(1 << 16)}, path, metadata={"format": "pt"})  # the sum is large enough


def endless(folder: Path) -> None:
    path, pattern = folder / "tokenizer.json", {"Regex": "(a+)+$"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pre_tokenizer": split}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (renamed, "the weight files lack 8 of the model's weights (model.layers.0.self_attn"),
        (reshaped, "2 weights do not have the shape that config.json gives (model.layers.0.self_attn.o_proj.weight"),
        (endless, "use the tokenizer files from the original model"),
    ],
)
def test_what_loading_would_refuse_is_not_said_to_be_ok(probed, study, tmp_path, llama, damage, says):
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    assert lines(study({"id": str(folder), "name": "m"}), tmp_path)["weights of m"][0] == "ok"
    damage(folder)
    found = lines(study({"id": str(folder), "name": "m"}), tmp_path)
    assert found["weights of m"][0] == found["model m"][0] == "failed" and says in found["weights of m"][1]
