"""Says which build of torch was installed, and ends the image's build where it is the other one: cpu or cuda."""

import runpy
import sys
from pathlib import Path

REMEDY = {
    "cpu": "gigabytes that this image has no use for: docker build --build-arg TORCH_INDEX=<the index of CPU wheels "
    "that PyTorch's install page names> -f Dockerfile.cpu -t llmjobs:cpu .",
    "cuda": "and this image is for GPUs: leave out TORCH_INDEX, or give the index of a CUDA version",
}


def main(wanted: str) -> None:
    """Read ``torch/version.py`` without importing torch, whose libraries may not be there yet."""
    found = runpy.run_path(str(next(Path("/opt/llmjobs/lib").glob("python3*/site-packages/torch/version.py"))))
    cuda = found["cuda"]
    build = f"torch {found['__version__']} is a build for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    if bool(cuda) != (wanted == "cuda"):
        sys.exit(f"{build}, {REMEDY[wanted]}")
    print(build)


if __name__ == "__main__":
    main(sys.argv[1])
