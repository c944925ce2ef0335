"""`millrace models`: models for the embedder fastembed."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import exit_codes
from app.cli.lazy import model_download, output
from app.cli.options import AsJson, new_group

models = new_group("Models for the embedder fastembed.")


@models.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="Name at the hub, such as BAAI/bge-small-en-v1.5.", metavar="NAME")],
    as_json: AsJson = False,
) -> int:
    """Download a model from the Hugging Face hub into the data folder."""
    folder = model_download.download_model(name)
    if as_json:
        output.emit({"model": name, "folder": str(folder)})
    else:
        output.out.print(f"{folder}\n[dim]MILLRACE_EMBEDDER=fastembed MILLRACE_EMBEDDER_MODEL={name}[/]")
    return exit_codes.OK
