"""Download a transformer's ONNX model from the Hugging Face hub for the embedder fastembed."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.core import http
from app.core.settings import get_settings
from app.search.embedders import models_folder

GRAPHS = ["model.onnx", "onnx/model.onnx"]
FILES = [
    *GRAPHS, "tokenizer.json", "tokenizer_config.json", "config.json", "special_tokens_map.json",
    "1_Pooling/config.json",
]  # fmt: skip
METADATA_TIMEOUT_S = 30


def download_model(name: str) -> Path:
    """Return the folder of the model in the data folder; a failed download leaves the old model in place."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise CliExit(exit_codes.USAGE, "this needs the extra: pip install millrace[fastembed]") from error
    folder = models_folder(get_settings()) / name.replace("/", "--")
    partial = folder.with_name(f"{folder.name}.part")
    try:
        hub.snapshot_download(name, local_dir=partial, allow_patterns=FILES, etag_timeout=METADATA_TIMEOUT_S)
    except (http.HTTPError, OSError, ValueError) as error:  # the hub's errors are subclasses of these
        raise CliExit(exit_codes.UNREACHABLE, f"{name} could not be fetched: {str(error).splitlines()[0]}") from error
    if not any((partial / graph).exists() for graph in GRAPHS):
        shutil.rmtree(partial)
        raise CliExit(exit_codes.FAILED, f"{name} has no ONNX model; choose a model with onnx/model.onnx")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder
