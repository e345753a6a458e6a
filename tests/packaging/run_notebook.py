"""Executes a notebook on the kernel of another environment, in the working folder; its outputs go into the file.

``python run_notebook.py NOTEBOOK PYTHON``. A separate process, so that a killed kernel's sockets end with it.
"""

import json
import sys
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

CELL_S = 900


def kernel_of(python: str, folder: Path) -> AsyncKernelManager:
    place = folder / "kernels" / "clean"
    place.mkdir(parents=True, exist_ok=True)
    command = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (place / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "clean", "language": "python"}))
    manager = AsyncKernelManager(kernel_name="clean")
    manager.kernel_spec_manager.kernel_dirs = [str(folder / "kernels")]
    return manager


if __name__ == "__main__":
    path, folder = Path(sys.argv[1]), Path.cwd()
    notebook = nbformat.read(path, as_version=4)
    try:
        NotebookClient(notebook, km=kernel_of(sys.argv[2], folder), timeout=CELL_S).execute(cwd=str(folder))
    finally:
        nbformat.write(notebook, path)
