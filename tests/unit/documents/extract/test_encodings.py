"""Encodings by the labels that files and messages carry, as browsers read them; what is invalid harms no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.documents.extract.plain import decode, decode_html
from tests.support import made_documents
from tests.support.extraction import read

CHINESE = "乡村学校位于大河旁边，孩子们每天早上步行去上学。"


@pytest.mark.parametrize(
    ("label", "codec", "words"),
    [
        ("gb2312", "gb18030", CHINESE + "镕㐀"),
        ("GBK", "gb18030", CHINESE + "€"),
        ("x-sjis", "cp932", "村の学校は大きな川のそばにあり①㈱"),
        ("iso-8859-1", "cp1252", "“Grüße” – 5 €"),
        ("latin1", "cp1252", "Œuvre…"),
        ("ks_c_5601-1987", "cp949", "시골 학교는 큰 강 옆에 있고 뷁"),
        ("windows-1251", "cp1251", "Школа деревни стоит у большой реки"),
        ("big5", "big5hkscs", "鄉村學校位於大河旁邊"),
    ],
)  # fmt: skip
def test_a_label_is_read_as_browsers_do(tmp_path: Path, label: str, codec: str, words: str) -> None:
    for head in (f'<meta charset="{label}">', f'<meta http-equiv="Content-Type" content="text/html; charset={label}">'):
        page = tmp_path / "page.html"
        page.write_bytes(f"<html><head>{head}</head><body><p>{words}</p></body></html>".encode(codec))
        assert read(page)["text"] == words
    mail = tmp_path / "letter.eml"
    for kind, body in (("plain", words), ("html", f"<p>{words}</p>")):
        head = f"From: a@b\nSubject: x\nContent-Type: text/{kind}; charset={label}\nContent-Transfer-Encoding: 8bit\n\n"
        mail.write_bytes(head.encode() + body.encode(codec))
        assert words in read(mail)["text"]


def test_an_invalid_byte_is_one_wrong_character(tmp_path: Path) -> None:
    """Neither a label nor UTF-8 is given up for it."""
    spoiled = (
        f"<html><head><meta charset=gb2312></head><body>{CHINESE}".encode("gb18030") + b"\xff" + CHINESE.encode("gbk")
    )
    page = tmp_path / "page.html"
    page.write_bytes(spoiled)
    text = read(page)["text"]
    assert text.count(CHINESE) == 2 and text.count("\ufffd") <= 1
    plain = tmp_path / "notes.txt"
    plain.write_bytes(("Grüße aus der Mühle. " * 5).encode() + b"\xe4" + " Über die Brücke, schön gemäht.".encode())
    assert "Grüße aus der Mühle." in read(plain)["text"] and "schön gemäht" in read(plain)["text"]
    cut = tmp_path / "cut.csv"
    cut.write_bytes(("Ort;Höhe\n" + "Mühle;7\n" * 9 + "Brü").encode()[:-1])
    assert "| Mühle | 7 |" in read(cut)["text"]


def test_a_mark_counts_more_than_a_label_and_an_unknown_label_counts_as_none() -> None:
    assert decode_html(b"\xef\xbb\xbf<meta charset=gbk>" + "Räder".encode()).endswith("Räder")
    assert decode_html("<meta charset=nonsense>Räder".encode()).endswith("Räder")
    assert decode_html('<?xml version="1.0" encoding="windows-1251"?><p>Школа</p>'.encode("cp1251")).endswith(
        "Школа</p>"
    )
    words = "Grüße aus der Mühle am Bach, wo die Räder sich drehen und das Wasser rauscht."
    assert decode(words.encode("cp1252"), "punycode") == words


def test_tables_without_a_label_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(("学校;学生\n" + f"{CHINESE};7\n" * 5).encode("gb18030"))
    assert f"| {CHINESE} | 7 |" in read(path)["text"]


def test_a_letter_of_html_says_its_encoding_in_the_html(tmp_path: Path) -> None:
    path = tmp_path / "letter.eml"
    head = b"From: a@b\nSubject: x\nContent-Type: text/html\nContent-Transfer-Encoding: 8bit\n\n<meta charset=gb2312>"
    path.write_bytes(head + CHINESE.encode("gb18030"))
    assert CHINESE in read(path)["text"]
    chapter = f'<?xml version="1.0" encoding="gb2312"?><html><body><p>{CHINESE}</p></body></html>'
    made_documents.as_epub(tmp_path / "b.epub", "x", chapter=chapter.encode("gb18030"))
    assert CHINESE in read(tmp_path / "b.epub")["text"]
