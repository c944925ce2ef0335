"""What Office files hold besides paragraphs and cells, and the forms in which such files come."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from docx.oxml import parse_xml as docx_xml
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from app.documents.files import sniff
from tests.support import made_documents
from tests.support.extraction import read

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_NAMESPACES = (
    f'{W} xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing" '
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:v="urn:schemas-microsoft-com:vml"'
)


def _run(text: str) -> str:
    return f"<w:r><w:t xml:space='preserve'>{text}</w:t></w:r>"


def _word(path: Path, *paragraphs: str) -> str:
    """Write a Word file of these paragraphs' contents; return its text."""
    document = docx.Document()
    for content in paragraphs:
        document.element.body.insert(-1, docx_xml(f"<w:p {_NAMESPACES}>{content}</w:p>"))
    document.save(str(path))
    return str(read(path)["text"])


def _repacked(path: Path, change: Callable[[str, bytes], tuple[str, bytes]], first: str | None = None) -> Path:
    """Write the archive again with other names or contents; `first` is the member to begin with."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = sorted(members, key=lambda name: name != first)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(*change(name, members[name]))
    path.write_bytes(data.getvalue())
    return path


def test_runs_within_links_fields_and_changes_are_read(tmp_path: Path) -> None:
    text = _word(
        tmp_path / "a.docx",
        f"{_run('See ')}<w:hyperlink w:anchor='x'>{_run('the mill')}</w:hyperlink>{_run('.')}",
        f"<w:ins w:id='1' w:author='A'>{_run('Added.')}</w:ins><w:del w:id='2' w:author='A'><w:r>"
        "<w:delText>Removed.</w:delText></w:r></w:del>",
        f"{_run('Name: ')}<w:sdt><w:sdtContent>{_run('Ada Miller')}</w:sdtContent></w:sdt>",
        "<w:r><w:fldChar w:fldCharType='begin'/></w:r><w:r><w:instrText>DATE</w:instrText></w:r>"
        f"<w:r><w:fldChar w:fldCharType='separate'/></w:r>{_run('May 4')}<w:r><w:fldChar w:fldCharType='end'/></w:r>",
        "<w:r><w:fldChar w:fldCharType='begin'><w:ffData><w:checkBox><w:default w:val='0'/><w:checked/></w:checkBox>"
        f"</w:ffData></w:fldChar></w:r>{_run('oak')}",
        "<w:r><w:fldChar w:fldCharType='begin'><w:ffData><w:ddList><w:result w:val='1'/><w:listEntry w:val='red'/>"
        "<w:listEntry w:val='blue'/></w:ddList></w:ffData></w:fldChar></w:r>",
    )
    for words in ("See the mill.", "Added.", "Name: Ada Miller", "May 4", "☒ oak", "blue"):
        assert words in text
    assert "Removed" not in text and "DATE" not in text


def test_text_boxes_and_alternative_texts_are_read_once(tmp_path: Path) -> None:
    box = f"<w:txbxContent><w:p>{_run('In the box.')}</w:p></w:txbxContent>"
    text = _word(
        tmp_path / "a.docx",
        f"{_run('Before.')}<w:r><mc:AlternateContent><mc:Choice Requires='wps'><w:drawing><wp:inline><wp:docPr id='1' "
        f"name='Box 1' descr='A drawing of the wheel'/><a:graphic><a:graphicData><wps:wsp><wps:txbx>{box}</wps:txbx>"
        "</wps:wsp></a:graphicData></a:graphic></wp:inline></w:drawing></mc:Choice><mc:Fallback><w:pict><v:shape>"
        f"<v:textbox>{box}</v:textbox></v:shape></w:pict></mc:Fallback></mc:AlternateContent></w:r>",
        f"<w:r><w:pict><v:shape alt='An old picture'><v:textbox>{box.replace('In the', 'In the old')}</v:textbox>"
        "</v:shape></w:pict></w:r>",
    )
    assert text.count("In the box.") == 1 and "In the old box." in text
    assert "A drawing of the wheel" in text and "An old picture" in text and "Box 1" not in text


def _math(inner: str) -> str:
    return f"<m:oMath>{inner}</m:oMath>"


def _m(text: str) -> str:
    return f"<m:r><m:t>{text}</m:t></m:r>"


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        (_m("E=m") + f"<m:sSup><m:e>{_m('c')}</m:e><m:sup>{_m('2')}</m:sup></m:sSup>", "E=mc^2"),
        (f"<m:f><m:num>{_m('a+b')}</m:num><m:den>{_m('2')}</m:den></m:f>", "(a+b)/2"),
        (f"<m:rad><m:radPr><m:degHide/></m:radPr><m:deg/><m:e>{_m('x')}</m:e></m:rad>", "√(x)"),
        (f"<m:nary><m:naryPr><m:chr m:val='∑'/></m:naryPr><m:sub>{_m('i=1')}</m:sub><m:sup>{_m('n')}</m:sup><m:e>"
         f"{_m('i')}</m:e></m:nary>", "∑_(i=1)^n i"),
        (f"<m:d><m:e>{_m('x')}</m:e></m:d>", "(x)"),
        (f"<m:func><m:fName>{_m('sin')}</m:fName><m:e>{_m('x')}</m:e></m:func>", "sin(x)"),
        (f"<m:m><m:mr><m:e>{_m('1')}</m:e><m:e>{_m('0')}</m:e></m:mr><m:mr><m:e>{_m('0')}</m:e><m:e>{_m('1')}</m:e>"
         "</m:mr></m:m>", "1, 0; 0, 1"),
    ],
)  # fmt: skip
def test_equations_are_text(tmp_path: Path, inner: str, text: str) -> None:
    assert f"Then {text} holds." in _word(tmp_path / "a.docx", f"{_run('Then ')}{_math(inner)}{_run(' holds.')}")
    assert text in _word(tmp_path / "b.docx", f"<m:oMathPara>{_math(inner)}</m:oMathPara>")


def test_headers_notes_comments_and_numbers_of_lists_are_read(tmp_path: Path) -> None:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "Mill papers, volume 3"
    document.sections[0].footer.paragraphs[0].text = "Not for sale"
    for style, text in (("List Number", "dig"), ("List Number", "build"), ("List Bullet", "oak")):
        document.add_paragraph(text, style=style)
    paragraph = document.add_paragraph("The wheel is new.")
    document.add_comment(paragraph.runs, text="Since when?", author="Bo")
    document.save(str(tmp_path / "a.docx"))
    text = read(tmp_path / "a.docx")["text"]
    assert "1. dig\n2. build\n- oak" in text
    for words in ("Mill papers, volume 3", "Not for sale", "Bo: Since when?"):
        assert text.count(words) == 1


def test_slides_give_charts_groups_alternative_texts_notes_and_comments(tmp_path: Path) -> None:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "Levels"
    data = CategoryChartData()  # type: ignore[no-untyped-call]
    data.categories = ["May", "June"]
    data.add_series("Water", (12, 14.5))  # type: ignore[no-untyped-call]
    chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, Inches(4), Inches(3), data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "Water by month"
    group = slide.shapes.add_group_shape()
    box = group.shapes.add_textbox(0, 0, Inches(1), Inches(1))
    box.text_frame.text = "Grouped words"
    made_documents.picture("x").save(tmp_path / "p.png")
    photo = slide.shapes.add_picture(str(tmp_path / "p.png"), 0, 0)
    photo._element.nvPicPr.cNvPr.set("descr", "The wheel in winter")
    slide.notes_slide.notes_text_frame.text = "Speak slowly."
    deck.save(str(tmp_path / "a.pptx"))
    text = read(tmp_path / "a.pptx")["text"]
    assert text.startswith("# Levels")
    assert "Water by month" in text and "|  | Water |" in text and "| June | 14.5 |" in text
    for words in ("Grouped words", "The wheel in winter", "Speak slowly."):
        assert words in text


def test_sheets_give_comments_and_charts(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (("Month", "Level"), ("May", 12), ("June", 14)):
        sheet.append(row)
    sheet["B2"].comment = Comment("Measured at noon", "Ada")
    chart = BarChart()
    chart.title = "Levels of the year"
    chart.add_data(Reference(sheet, min_col=2, min_row=1, max_row=3), titles_from_data=True)
    sheet.add_chart(chart, "D1")
    book.save(tmp_path / "a.xlsx")
    text = read(tmp_path / "a.xlsx")["text"]
    assert "| May | 12 |" in text and "Measured at noon" in text and "Levels of the year" in text


_STRICT = (
    (b"http://schemas.openxmlformats.org/officeDocument/2006/relationships", b"officeDocument/relationships"),
    (b"http://schemas.openxmlformats.org/wordprocessingml/2006/main", b"wordprocessingml/main"),
    (b"http://schemas.openxmlformats.org/presentationml/2006/main", b"presentationml/main"),
    (b"http://schemas.openxmlformats.org/spreadsheetml/2006/main", b"spreadsheetml/main"),
    (b"http://schemas.openxmlformats.org/drawingml/2006/main", b"drawingml/main"),
)


def _strict(name: str, data: bytes) -> tuple[str, bytes]:
    for usual, strict in _STRICT:
        data = data.replace(usual, b"http://purl.oclc.org/ooxml/" + strict)
    return name, data


@pytest.mark.parametrize("ending", ["docx", "pptx", "xlsx"])
def test_strict_files_are_read(tmp_path: Path, ending: str) -> None:
    made = made_documents.make(tmp_path, ending, "weir")
    path = _repacked(made.path, _strict)
    assert made.sentence is not None and made.sentence in read(path)["text"]


@pytest.mark.parametrize(
    ("ending", "first"),
    [
        ("docx", "word/document.xml"),
        ("docx", "docProps/app.xml"),
        ("pptx", "ppt/presentation.xml"),
        ("xlsx", "xl/workbook.xml"),
    ],
)  # fmt: skip
def test_the_order_of_the_members_does_not_matter(tmp_path: Path, ending: str, first: str) -> None:
    made = made_documents.make(tmp_path, ending, "weir")
    path = _repacked(made.path, lambda name, data: (name, data), first)
    assert made.sentence is not None and made.sentence in read(path)["text"]


def _office365(name: str, data: bytes) -> tuple[str, bytes]:
    """As exports of Office 365 name the main part."""
    return name.replace("word/document.xml", "word/document2.xml").replace(
        "word/_rels/document.xml", "word/_rels/document2.xml"
    ), data.replace(b"word/document.xml", b"word/document2.xml")


def _absolute(name: str, data: bytes) -> tuple[str, bytes]:
    return name.replace("/", "\\"), data.replace(b'Target="word/', b'Target="/word/')


def _template(name: str, data: bytes) -> tuple[str, bytes]:
    return name.upper() if name.startswith("[") else name, data.replace(b"document.main+xml", b"template.main+xml")


@pytest.mark.parametrize("change", [_office365, _absolute, _template])
def test_other_names_of_the_parts_are_followed(
    tmp_path: Path, change: Callable[[str, bytes], tuple[str, bytes]]
) -> None:
    made = made_documents.make(tmp_path, "docx", "weir")
    path = _repacked(made.path, change)
    assert sniff.sniff(path, "file.bin") == sniff.DOCX
    assert made.sentence is not None and made.sentence in read(path)["text"]


def test_an_archive_with_a_mark_before_it_is_read_and_others_are_of_no_kind(tmp_path: Path) -> None:
    made = made_documents.make(tmp_path, "docx", "weir")
    made.path.write_bytes(b"PK00" + made.path.read_bytes())
    assert sniff.sniff(made.path, "x.docx") == sniff.DOCX and made.sentence is not None
    assert made.sentence in read(made.path)["text"]
    made_documents.zipped(tmp_path / "plain.zip", {"a.txt": "words", "b/word.xml": "<a/>"})
    assert sniff.sniff(tmp_path / "plain.zip", "plain.docx") is None
