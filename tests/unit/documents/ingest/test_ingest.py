"""A version becomes what is searched: extracted, chunked, embedded, indexed; again, at once, or not at all."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from app.core.errors import Cancelled, Conflict, InvalidInput, NotFound, Stale
from app.documents import catalog
from app.documents.models import Document, DocumentVersion
from app.jobs.ledger import claims, commands, ends
from app.search.engines.base import Filters
from app.search.models import Chunk, IndexChange
from tests.support.desk import TENANT, Desk

PAGE = "# Millraces\n\nA millrace carries water to the wheel.\n\n## Sluices\n\nA sluice gate stops the water.\n"


def _paragraphs(count: int) -> str:
    return "\n\n".join(
        f"Paragraph {n} tells of item{n}. " + f"It has words about subject{n}. " * 25 for n in range(count)
    )


def test_a_page_is_found_when_its_job_has_run(desk: Desk) -> None:
    """The main job: text in, found by words and by meaning."""
    result = desk.put(PAGE, url="https://Example.com/mill?utm_source=x&a=1#top", tags=("water",))
    assert result["status"] == "indexed"
    assert result["chunks"] == result["embedded"] >= 1
    for mode in ("hybrid", "keyword", "semantic"):
        answer = desk.find("sluice gates", mode=mode)
        hit = answer["results"][0]
        assert (hit["url"], hit["title"]) == ("https://Example.com/mill?utm_source=x&a=1#top", "Millraces")
        assert hit["id"] == result["version_id"] and hit["id"].isdecimal()
        assert isinstance(hit["score"], float) and "sluice" in hit["text"]
        assert hit["metadata"]["content_id"] == hit["id"]
        assert hit["metadata"]["canonical_url"] == "https://example.com/mill?a=1"
        assert hit["metadata"]["domain"] == "Example.com"
    start, end = desk.find("sluice gates")["results"][0]["highlights"][0]
    assert desk.find("sluice gates")["results"][0]["snippet"][start:end].lower() in ("sluices", "sluice")


def test_spans_point_into_the_stored_text(desk: Desk) -> None:
    """A citation can be cut from the stored text."""
    result = desk.put("\ufeff" + _paragraphs(12).replace("\n", "\r\n"), url="https://example.com/long")
    with desk.db.engine.connect() as connection:
        text = connection.scalar(sa.select(DocumentVersion.text))
        chunks = connection.execute(sa.select(Chunk.text, Chunk.span_start, Chunk.span_end)).all()
    assert text is not None and "\r" not in text
    assert len(chunks) == result["chunks"] > 2
    assert all(text[chunk.span_start : chunk.span_end] == chunk.text for chunk in chunks)


def test_the_same_page_again_embeds_nothing(desk: Desk) -> None:
    """Unchanged content ends early and says so."""
    desk.put(PAGE, url="https://example.com/a")
    again = desk.put(PAGE, url="https://example.com/a#other")
    assert (again["status"], again["embedded"]) == ("unchanged", 0)
    assert desk.find("sluice")["total"] == 1


def test_one_changed_paragraph_embeds_only_it(desk: Desk) -> None:
    """A chunk whose text has not changed keeps its vector."""
    sections = [f"## Part {n}\n\n" + f"Subject{n} is told here at length, with words. " * 30 for n in range(8)]
    first = desk.put("\n\n".join(sections), url="https://example.com/a", title="T")
    sections[3] = sections[3].replace("at length", "in other words")
    second = desk.put("\n\n".join(sections), url="https://example.com/a", title="T")
    assert first["embedded"] == first["chunks"] > 8
    assert second["status"] == "indexed"
    assert 0 < second["embedded"] <= 4 < second["chunks"]


def test_a_new_version_replaces_the_old(desk: Desk) -> None:
    """Nothing of the old text is found any more, and the document stays one."""
    desk.put("The heron stands in the reeds.", url="https://example.com/a")
    desk.put("The kingfisher dives.", url="https://example.com/a?utm_medium=mail")
    assert desk.find("heron", mode="keyword")["total"] == 0
    assert desk.find("kingfisher", mode="keyword")["total"] == 1
    with desk.db.engine.connect() as connection:
        states = connection.scalars(sa.select(DocumentVersion.state).order_by(DocumentVersion.id)).all()
        assert connection.scalar(sa.select(sa.func.count()).select_from(Document)) == 1
    assert states == ["superseded", "current"]


def test_slow_older_version_does_not_replace_a_newer_one(desk: Desk) -> None:
    """Two jobs of one page in the wrong order: the newer content stays."""
    old = desk.give("The heron stands in the reeds.", url="https://example.com/a")
    new = desk.give("The kingfisher dives.", url="https://example.com/a")
    assert desk.work(new.job.id)["status"] == "indexed"
    assert desk.work(old.job.id)["status"] == "superseded"
    assert desk.find("kingfisher", mode="keyword")["total"] == 1
    assert desk.find("heron", mode="keyword")["total"] == 0


def test_slow_older_version_does_not_replace_a_newer_unchanged_one(desk: Desk) -> None:
    """The page changed and changed back; the middle one's job runs last."""
    url = "https://example.com/back"
    desk.put("The heron stands.", url=url)
    middle, last = desk.give("The mill turns.", url=url), desk.give("The heron stands.", url=url)
    assert desk.work(last.job.id)["status"] == "unchanged"
    assert desk.work(middle.job.id)["status"] == "superseded"
    desk.follow()
    assert (desk.find("heron", mode="keyword")["total"], desk.find("mill", mode="keyword")["total"]) == (1, 0)


def test_the_same_content_while_its_job_is_open_is_one_version(desk: Desk) -> None:
    """Posting twice makes two jobs, and the second finds its work done."""
    first = desk.give(PAGE, url="https://example.com/a")
    second = desk.give(PAGE, url="https://example.com/a")
    assert first.version_id == second.version_id and first.document_id == second.document_id
    assert desk.work(first.job.id)["status"] == "indexed"
    changes = desk.db.read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(IndexChange)))
    assert desk.work(second.job.id)["status"] == "indexed"
    assert desk.db.read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(IndexChange))) == changes


def test_a_lost_worker_writes_nothing(desk: Desk) -> None:
    """The fence has moved while it slept: its transaction raises Stale, the other's stands."""
    accepted = desk.give(PAGE, url="https://example.com/a")
    sleeper = desk.claim(accepted.job.id)
    desk.db.transaction(ends.free, desk.worker_id, "worker lost")
    awake = desk.claim(accepted.job.id)
    with pytest.raises(Stale):
        desk.run(sleeper)
    assert desk.find("sluice")["total"] == 0
    assert desk.run(awake)["status"] == "indexed"


def test_a_cancelled_job_writes_nothing(desk: Desk) -> None:
    """hold() sees the cancel at the next transaction."""
    accepted = desk.give(PAGE, url="https://example.com/a")
    progress = desk.claim(accepted.job.id)
    desk.db.transaction(commands.cancel, TENANT, accepted.job.id)
    with pytest.raises(Cancelled):
        desk.run(progress)
    assert desk.find("sluice")["total"] == 0


def test_a_deleted_document_is_gone_at_once(desk: Desk) -> None:
    """From search, from the list, and for its job still waiting."""
    result = desk.put(PAGE, url="https://example.com/a")
    assert desk.find("sluice")["total"] == 1
    waiting = desk.give("New text", url="https://example.com/a")
    desk.db.transaction(catalog.delete, TENANT, result["document_id"])
    assert desk.find("sluice")["total"] == 0
    with pytest.raises(NotFound):
        desk.db.read(catalog.document_detail, TENANT, result["document_id"])
    assert desk.db.transaction(claims.claim, [waiting.job.id], desk.worker_id) == []
    again = desk.put(PAGE, url="https://example.com/a")
    assert int(again["document_id"]) > int(result["document_id"])
    assert desk.find("sluice")["total"] == 1


def test_html_is_reduced_to_its_content(desk: Desk) -> None:
    """In a sandbox; title and language come from the page."""
    html = f"""<html lang="de-AT"><head><title>Mühlen</title><meta name="description" content="Über Mühlen"></head>
    <body><nav>Startseite Kontakt</nav><main><h1>Mühlen</h1><p>{"Das Wasser treibt die Mühlräder am Bach. " * 5}</p>
    </main><footer>Impressum</footer></body></html>"""
    desk.put(html, format="html", url="https://example.com/de")
    hit = desk.find("muhlrad", mode="keyword")["results"][0]
    assert (hit["title"], hit["metadata"]["language"]) == ("Mühlen", "de-AT")
    assert "Impressum" not in hit["text"] and "Startseite" not in hit["text"]


@pytest.mark.parametrize("body", ["<html><body><script>x()</script></body></html>", "<p>\x00\x01</p>", "\x00"])
def test_nothing_to_index_is_a_clear_failure(desk: Desk, body: str) -> None:
    """Permanent, with a sentence; never an indexed empty document."""
    with pytest.raises(InvalidInput, match="no text"):
        desk.put(body, format="html" if "<" in body else "text", url="https://example.com/empty")


def test_unusual_characters_are_indexed(desk: Desk) -> None:
    """NUL, halves of pairs and NaN are what databases refuse; the words around them are found."""
    odd = {"a\x00b": ["\ud800x", float("nan"), {"deep": "\udfff"}]}
    result = desk.put("wheel\x00 and \ud83d axle \ufffe 🛞", title="T\x00\ud800", metadata=odd, tags=("t\x00",))
    hit = desk.find("axle \ud800")["results"][0]
    assert hit["document_id"] == result["document_id"] and hit["title"] == "T"
    assert hit["metadata"]["ab"] == ["x", None, {"deep": ""}]


def test_a_key_names_a_document_without_url(desk: Desk) -> None:
    """The caller's own id is what makes the second one replace the first; without one each is new."""
    first, second = desk.put("alpha text", external_id="k1"), desk.put("beta text", external_id="k1")
    assert first["document_id"] == second["document_id"]
    assert desk.put("gamma")["document_id"] != desk.put("gamma")["document_id"]
    desk.put("delta", url="https://example.com/d")
    with pytest.raises(Conflict):
        desk.give("delta", external_id="k2", url="https://example.com/d")


def test_tenants_do_not_share_documents(desk: Desk) -> None:
    """The same page of two tenants is two documents, each found by its own."""
    other = desk.give(PAGE, url="https://example.com/a", tenant="other")
    desk.work(other.job.id)
    assert desk.find("sluice")["total"] == 0
    assert desk.find("sluice", tenant="other")["total"] == 1
    with pytest.raises(NotFound):
        desk.db.read(catalog.document_detail, TENANT, str(other.document_id))


def test_changed_fields_without_new_text_update_the_filters(desk: Desk) -> None:
    """The text is the same, the tag is new: nothing is embedded, the filter knows."""
    desk.put(PAGE, url="https://example.com/a", title="T")
    again = desk.put(PAGE, url="https://example.com/a", title="T", tags=("mill",), country="AT")
    assert (again["status"], again["embedded"]) == ("indexed", 0)
    assert desk.find("sluice", filters=Filters(tags=("mill",), country="AT"))["total"] == 1
    assert desk.find("sluice", filters=Filters(tags=("mill", "other")))["total"] == 0
