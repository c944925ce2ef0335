"""Pages as they are on the web: the content with its structure, and nothing of what surrounds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.documents.extract.html_parser import extract_html
from app.documents.text import clean
from tests.support import made_documents, web_pages
from tests.support.extraction import read


def _read(folder: Path, html: str) -> str:
    blob = folder / "page.html"
    blob.write_text(html, "utf-8")
    extract_html(blob, "https://example.com/page")
    return blob.with_suffix(".md").read_text("utf-8")


@pytest.mark.parametrize("name", ["NEWS", "DOCS", "SHOP", "FORUM", "SHORT", "TABLE", "BARE", "THREAD", "SOUP"])
def test_menus_banners_comments_and_hidden_text_are_left_out(tmp_path: Path, name: str) -> None:
    text = _read(tmp_path, getattr(web_pages, name))
    assert text
    assert [word for word in web_pages.FURNITURE if word in text] == []


def test_an_article_keeps_headings_links_numbers_and_quotations(tmp_path: Path) -> None:
    text = _read(tmp_path, web_pages.NEWS)
    assert text.startswith("# The mill opens again\n\nBy Ada Miller\n\nThe mill in May\n\nThe wheel turns.")
    assert "the water mill of the village" in text
    steps = "1. The race was dug out.\n2. The wheel was built:\n   - of oak\n   - of iron\n3. The stones were dressed."
    assert f"## Three steps\n\n{steps}" in text
    assert "> It runs as it did in 1890.\n\n> The miller" in text
    assert text.endswith("Visitors are welcome from May to October, every day but Monday.")


def test_code_keeps_its_lines_and_its_language(tmp_path: Path) -> None:
    text = _read(tmp_path, web_pages.DOCS)
    assert "# Install\n\nUse `pip install miller` first:" in text
    code = "import miller\n\ndef grind(corn):\n    return miller.run(corn)"
    assert f"```python\n{code}\n```" in text
    assert "```sh\ncd /srv/mill\n./start --fast\n```" in text
    assert "```\nwheel:\n  speed: 12\n```" in text and "1\n2" not in text
    assert "4. Start the wheel.\n\n   ```\n   mill start\n   ```\n7. Stop it." in text


def test_a_manual_keeps_tables_notes_terms_and_what_opens_on_a_click(tmp_path: Path) -> None:
    text = _read(tmp_path, web_pages.DOCS)
    rows = ["| Option | Default | Meaning |", "| --- | --- | --- |", "| `speed` | 12 | turns \\| minute |"]
    assert "\n".join([*rows, "| `load` | 12 | sacks an hour |"]) in text
    for words in ("The wheel must be dry.", "Oil it twice.", "race\n\nThe channel", "Why so slow?", "Fast stones"):
        assert words in text
    assert "### Can it rain?\n\nYes, it can." in text


def test_a_shop_page_keeps_price_and_details(tmp_path: Path) -> None:
    text = _read(tmp_path, web_pages.SHOP)
    assert text.startswith("# Oak wheel, 2 m")
    assert "| Weight | 240 kg |" in text and "| Wood | oak |" in text and "Good wheel, says Bo." in text
    assert "In stock" in text and "1,290 €" in text and "Elm wheel" not in text


def test_every_post_of_a_forum_is_read(tmp_path: Path) -> None:
    text = _read(tmp_path, web_pages.FORUM)
    assert all(words in text for words in ("squeaks when it is warm", "with tallow", "took beeswax", "bo"))
    thread = _read(tmp_path, web_pages.THREAD)
    assert all(f"Answer {n}: take oak" in thread for n in range(6))


def test_short_bare_and_tabular_pages_are_read_whole(tmp_path: Path) -> None:
    assert _read(tmp_path, web_pages.SHORT) == "# Closed\n\nWe are back in May."
    bare = _read(tmp_path, web_pages.BARE)
    assert bare == "The first line stands alone.\n\nThe second follows it. A third line."
    table = _read(tmp_path, web_pages.TABLE)
    assert "| Month | Level |" in table and all(f"| Month {n} | {10 * n} cm |" in table for n in range(1, 13))


def test_content_without_a_name_is_found_by_its_text(tmp_path: Path) -> None:
    """Neither main nor article: trafilatura extracts the story, and the part around it is the content."""
    text = _read(tmp_path, web_pages.SOUP)
    assert all(f"Paragraph {n} of the story" in text for n in range(8)) and "Weather today" not in text


def test_a_page_of_which_little_is_extracted_is_read_as_a_whole(tmp_path: Path) -> None:
    text = _read(tmp_path, web_pages.PIECES)
    assert all(f"Item {n} {n} €" in text for n in range(200))
    links = "".join(f"<li><a href='/{n}'>Chapter {n}</a></li>" for n in range(30))
    listed = _read(tmp_path, f"<body><h1>All chapters</h1><ul>{links}</ul></body>")
    assert all(f"- Chapter {n}" in listed for n in range(30))


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<body style='display:none'><p>Shown by a script.</p></body>", "Shown by a script."),
        ("<div id=app hidden><p>Shown by a script.</p></div>", "Shown by a script."),
        ("<p class='hidden md:block'>Shown on a wide screen.</p>", "Shown on a wide screen."),
        ("<p hidden='until-found'>Found in the page.</p>", "Found in the page."),
        ("<p>Seen.</p><p style='DISPLAY:NONE'>Not.</p><p style='visibility: hidden'>Not.</p>", "Seen."),
        ("<style>p{display:block}.tab{display:none}.tab.on{display:block}</style><p>A</p><p class=tab>B</p>"
         "<p class='tab on'>C</p>", "A\n\nC"),
        ("<p>Seen.</p><details><summary>More</summary>Opens.</details>", "Seen.\n\nMore\n\nOpens."),
        ("<p>E = <span class=katex><math><semantics><mi>m</mi><annotation encoding='application/x-tex'>mc^2"
         "</annotation></semantics></math><span aria-hidden=true>mc2</span></span></p>", "E = mc^2"),
    ],
)  # fmt: skip
def test_what_browsers_hide_is_hidden_and_nothing_else(tmp_path: Path, html: str, text: str) -> None:
    assert _read(tmp_path, html) == text


@pytest.mark.parametrize(
    "banner",
    [
        "<div class='cc-window cc-banner'>We use cookies. Agree?</div>",
        "<div id='onetrust-consent-sdk'><h2>Your privacy</h2><p>Choose.</p></div>",
        "<section class='notice fixed'>Wir verwenden Cookies, um die Seite zu verbessern.</section>",
        "<div class='CookieConsent__root'>Cookies: accept all or reject</div>",
        "<div role='dialog' aria-label='privacy'>Cookies and partners</div>",
        "<div class='fixed bottom-0 p-4'>This site uses cookies. <button>Fine</button></div>",
        "<div><p>We use cookies for statistics. <a href='/p'>More</a></p></div>",
        "<div style='position: fixed'>Nous utilisons des cookies.</div>",
    ],
)
def test_banners_of_many_makers_are_left_out(tmp_path: Path, banner: str) -> None:
    page = f"<body>{banner}<div><h1>Cakes</h1><p class='cookies'>Bake the cookies for ten minutes.</p></div></body>"
    assert _read(tmp_path, page) == "# Cakes\n\nBake the cookies for ten minutes."


def test_pictures_inside_of_the_page_are_left_out(tmp_path: Path) -> None:
    """In pages, in their style, in links, as text, and in letters."""
    uri = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ" * 60
    html = (
        f"<body style=\"background:url('{uri}')\"><h1>Wheel</h1><img src='{uri}' alt='The wheel'>"
        f"<p><a href='{uri}'>The plan</a> and {uri} the end.</p><pre>img {{ src: url({uri}) }}</pre></body>"
    )
    text = _read(tmp_path, html)
    mail = tmp_path / "letter.eml"
    mail.write_text(f"From: a@b\nSubject: x\nContent-Type: text/html\n\n{html}")
    for cleaned in (clean(text), read(mail)["text"]):
        assert "iVBORw" not in cleaned and len(cleaned) < 200
        for words in ("# Wheel", "The wheel", "The plan and  the end.".replace("  ", " "), "img { src: url() }"):
            assert words in cleaned.replace("  ", " ")


def test_a_chapter_and_a_letter_are_content_as_a_whole(tmp_path: Path) -> None:
    """Notes, footers and headers of a book or of a message belong to it; its hidden lines and menus do not."""
    html = (
        "<html><head><style>.pre{display:none}</style></head><body><div class='pre'>Preview</div><nav>Contents</nav>"
        "<header>Part one</header><p>The mill.</p><aside>A note.</aside><div class='footer'>Yours, Ada</div></body>"
    )
    made_documents.as_epub(tmp_path / "b.epub", "x", chapter=html.encode())
    mail = tmp_path / "letter.eml"
    mail.write_text(f"From: a@b\nSubject: x\nContent-Type: text/html\n\n{html}")
    for path in (tmp_path / "b.epub", mail):
        text = read(path)["text"]
        assert "Part one\n\nThe mill.\n\nA note.\n\nYours, Ada" in text
        assert "Preview" not in text and "Contents" not in text


def test_a_table_next_to_the_only_paragraph_is_content(tmp_path: Path) -> None:
    """In one form around the whole page, and beside a block of text."""
    table = "<table><tr><th>Day</th><th>cm</th></tr><tr><td>1</td><td>12</td></tr></table>"
    words = "<p>The level of the river is read each morning at six by the miller.</p>"
    for body in (
        f"<form id=aspnetForm><div><a href=1>Home</a></div><div><h1>Levels</h1>{words}<input>{table}</div></form>",
        f"<div><a href=1>Home</a></div><div><h1>Levels</h1><div><div>{words}</div>{table}</div></div>",
    ):
        text = _read(tmp_path, f"<body>{body}</body>")
        assert text.startswith("# Levels\n\nThe level of the river") and "| 1 | 12 |" in text


def test_comments_below_a_short_text_are_left_out_and_a_guest_book_is_read(tmp_path: Path) -> None:
    comments = "<div class='comments'><div class='comment'><p>Nice bread, I make it each week.</p></div></div>"
    assert _read(tmp_path, f"<main><h1>Bread</h1><p>Mix flour.</p>{comments}</main>") == "# Bread\n\nMix flour."
    book = "<div class='comment'><p>Lovely mill!</p></div><div class='comment'><p>Great day out.</p></div>"
    text = _read(tmp_path, f"<main><h1>Guest book</h1>{book}</main>")
    assert text == "# Guest book\n\nLovely mill!\n\nGreat day out."
