"""`millrace models fetch`: bring a transformer's ONNX model from the Hugging Face hub for the embedder fastembed."""

from __future__ import annotations

import importlib
import shutil

from app.cli import exit_codes, output
from app.cli.exit_codes import Quit
from app.core import http
from app.core.settings import get_settings
from app.search.embedders import models_folder

FILES = [
    "model.onnx", "onnx/model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json",
    "special_tokens_map.json", "1_Pooling/config.json",
]  # fmt: skip
PATIENCE_S = 30


def fetch(name: str, *, as_json: bool) -> int:
    """The model in the data folder; what was half fetched is not left behind."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise Quit(exit_codes.BAD_USE, "this needs the extra: pip install millrace[fastembed]") from error
    folder = models_folder(get_settings()) / name.replace("/", "--")
    coming = folder.with_name(f"{folder.name}.part")
    try:
        hub.snapshot_download(name, local_dir=coming, allow_patterns=FILES, etag_timeout=PATIENCE_S)
    except (http.HTTPError, OSError, ValueError) as error:  # the hub's own errors are kinds of these
        raise Quit(exit_codes.UNREACHABLE, f"{name} could not be fetched: {str(error).splitlines()[0]}") from error
    if not any((coming / graph).exists() for graph in FILES[:2]):
        shutil.rmtree(coming)
        raise Quit(exit_codes.FAILED, f"{name} has no ONNX model; look for one that has onnx/model.onnx")
    shutil.rmtree(folder, ignore_errors=True)
    coming.rename(folder)
    if as_json:
        output.emit({"model": name, "folder": str(folder)})
    else:
        output.out.print(f"{folder}\n[dim]MILLRACE_EMBEDDER=fastembed MILLRACE_EMBEDDER_MODEL={name}[/]")
    return exit_codes.OK
