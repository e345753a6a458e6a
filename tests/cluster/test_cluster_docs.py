"""The script and the manifest of docs/cluster.md are well-formed, and so is the compose file."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "docs/cluster/slurm.sh"
KUBERAY = ROOT / "docs/cluster/raycluster.yaml"
COMPOSE = ROOT / "docker/compose.cluster.yaml"
HEAD, WORKER = "ray-head", "ray-worker"


def test_the_slurm_script_has_what_sbatch_reads():
    subprocess.run(["bash", "-n", SLURM], check=True)
    script = SLURM.read_text()
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script, re.MULTILINE))
    assert {"nodes", "ntasks-per-node", "cpus-per-task", "time"} <= options.keys()
    assert options["ntasks-per-node"] == "1"
    first_command = script.index("set -euo")
    assert not re.search(r"^#SBATCH", script[first_command:], re.MULTILINE), "sbatch stops reading at the first command"
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--severity=warning", SLURM], check=True)


def test_the_kubernetes_manifest_has_what_kuberay_requires():
    (cluster,) = list(yaml.safe_load_all(KUBERAY.read_text()))
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert cluster["metadata"]["name"]
    spec = cluster["spec"]
    pins = (ROOT / "docker/requirements-run.txt").read_text()
    assert f"ray=={spec['rayVersion']}\n" in pins, "the image has another version"
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert len(groups) > 1
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {"name", "image", "resources"} <= container.keys()
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert {"/app/results", "/cache"} == {mount["mountPath"] for mount in container["volumeMounts"]}
    for group in spec["workerGroupSpecs"]:
        assert group["groupName"] and group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_compose_file():
    compose = yaml.safe_load(COMPOSE.read_text())
    head, worker = compose["services"]["head"], compose["services"]["worker"]
    assert head["command"][0] == HEAD and worker["command"][:2] == [WORKER, "head"]
    assert worker["deploy"]["replicas"] == 2
    assert all(service["networks"] == ["cluster"] and "ports" not in service for service in (head, worker))


def test_the_entrypoint_starts_nodes():
    namespace = {"__name__": "entrypoint"}
    exec((ROOT / "docker/entrypoint.py").read_text(), namespace)  # noqa: S102 - the project's own file
    command = namespace["command"]
    assert command(["eval", "x.yaml"]) == ["/opt/llmjobs/bin/llmjobs", "eval", "x.yaml"]
    assert command(["ray-head", "--num-cpus=0"])[:3] == ["/opt/llmjobs/bin/ray", "start", "--block"]
    assert command(["ray-head", "--num-cpus=0"])[-1] == "--num-cpus=0"
    assert "--address=head:6379" in command(["ray-worker", "head"])
    assert "--address=head:7000" in command(["ray-worker", "head:7000", "--num-cpus=1"])
    with pytest.raises(SystemExit, match="ray-worker needs the head's name"):
        command(["ray-worker"])
