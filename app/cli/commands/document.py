"""`millrace documents`: list, show, delete and reprocess documents."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import exit_codes
from app.cli.exit_codes import CliExit
from app.cli.lazy import follow_jobs, http, output
from app.cli.options import AsJson, LongLimit, new_group

PATH = "/api/documents"
FACTS = ("url", "external_id", "collection", "language", "source", "chunks", "created_at", "indexed_at")

documents = new_group("Documents: list, show, delete, reprocess.")

DocumentId = Annotated[str, typer.Argument(help="Id of the document.", metavar="ID")]


@documents.command("list")
def list_documents(
    collection: Annotated[list[str] | None, typer.Option(help="Only this collection; repeatable.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only documents with this tag; repeatable.")] = None,
    lang: Annotated[str | None, typer.Option(help="Only this language, such as en.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only pages of this domain.")] = None,
    url: Annotated[str | None, typer.Option(help="Only the document of this URL.")] = None,
    indexed: Annotated[
        bool | None, typer.Option("--indexed/--not-indexed", help="Only documents that searches find, or the others.")
    ] = None,
    limit: LongLimit = 50,
    as_json: AsJson = False,
) -> int:
    """List documents, the newest first."""
    exact = {"language": lang, "domain": domain, "url": url, "indexed": None if indexed is None else str(indexed)}
    with http.ApiClient() as api:
        page = api.get(PATH, collection=collection, tag=tag, limit=limit, **exact)
    if as_json:
        output.emit(page)
        return exit_codes.OK
    table = output.new_table("id", "state", "chunks", "collection", "created", "title", "url")
    for document in page["data"]:
        state = "indexed" if document["indexed_at"] else "not indexed"
        cells = [document["id"], state, document["chunks"], document["collection"], str(document["created_at"])[:19]]
        table.add_row(*map(output.plain, [*cells, document["title"], document["url"]]))
    output.print_page(table, page)
    return exit_codes.OK


@documents.command("show")
def show_document(
    document_id: DocumentId,
    text: Annotated[bool, typer.Option("--text", help="Print the text of the document only.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show a document with its versions and its last job."""
    with http.ApiClient() as api:
        document = api.get(f"{PATH}/{document_id}")
    if as_json:
        output.emit(document)
    elif text:
        output.out.print(output.plain(_text_of(document)))
    else:
        _print_document(document)
    return exit_codes.OK


@documents.command("delete")
def delete_documents(
    document_ids: Annotated[list[str], typer.Argument(help="Ids of documents.", metavar="ID...")],
    as_json: AsJson = False,
) -> int:
    """Delete documents with their versions; searches no longer find them."""
    with http.ApiClient() as api:
        for document_id in document_ids:
            api.delete(f"{PATH}/{document_id}")
            if as_json:
                output.emit({"deleted": document_id})
            else:
                output.out.print(f"{output.plain(document_id)} deleted")
    return exit_codes.OK


@documents.command("reprocess")
def reprocess_document(
    document_id: DocumentId,
    password: Annotated[str | None, typer.Option(help="Password of an encrypted file.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
    as_json: AsJson = False,
) -> int:
    """Extract and index a document again, from its original if that is stored."""
    with http.ApiClient() as api:
        job = api.post(f"{PATH}/{document_id}/reprocess", None if password is None else {"password": password})
    return follow_jobs.follow_started(job, wait=wait, as_json=as_json)


def _text_of(document: dict[str, Any]) -> str:
    text = document["text"]
    if text is None:
        raise CliExit(exit_codes.FAILED, f"document {document['id']} has no text yet")
    return str(text)


def _print_document(document: dict[str, Any]) -> None:
    output.out.print(f"[bold]{output.plain(document['title'] or document['url'])}[/] {document['id']}")
    facts = {name: document.get(name) for name in FACTS} | {"tags": ", ".join(document["tags"])}
    for name, value in facts.items():
        if value not in (None, ""):
            output.out.print(f"  {name:<12} {output.plain(value)}")
    for version in document["versions"]:
        name = f"  {version['file_name']}" if version.get("file_name") else ""
        line = f"  version {version['id']}: {version['state']}, {version['created_at']}{name}"
        output.out.print(output.plain(line))
    job = document["last_job"]
    if job:
        output.out.print(f"  last job     {output.style_state(job['state'])}  {job['id']}")
        output.print_error(job)
