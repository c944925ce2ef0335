"""Extract an e-mail (.eml): its text, sender, recipients and date; attachments become files."""

from __future__ import annotations

import email
import email.policy
from email.errors import MessageError
from email.message import EmailMessage, Message, MIMEPart
from pathlib import Path

from app.core.errors import InvalidInput
from app.documents.extract.html_parser import to_markdown
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.pages import Pages
from app.documents.extract.plain import decode

_BROKEN = (MessageError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def extract(blob: Path, limits: ExtractLimits = USUAL) -> Pages:
    pages = Pages(limits)
    try:
        message = email.message_from_bytes(blob.read_bytes(), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        headers = {name: str(message[name]) for name in ("From", "To", "Cc", "Date", "Message-ID") if message[name]}
        pages.title = str(message["Subject"]) if message["Subject"] else None
        pages.metadata = {name.lower().replace("-", "_"): value for name, value in headers.items()}
        shown = [f"{name}: {value}" for name, value in headers.items() if name != "Message-ID"]
        pages.add("\n\n".join([*([f"# {pages.title}"] if pages.title else []), "\n".join(shown), _body(message)]))
        _attach(pages, message, blob)
    except _BROKEN as error:
        raise InvalidInput(f"the e-mail is broken: {error}", code="broken_document") from error
    return pages


def _body(message: EmailMessage) -> str:
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return ""
    content = _content(part)
    return to_markdown(content) if part.get_content_type() == "text/html" else content


def _content(part: MIMEPart) -> str:
    try:
        return str(part.get_content())
    except (LookupError, ValueError):  # an unknown charset
        data = part.get_payload(decode=True)
        return decode(data) if isinstance(data, bytes) else ""


def _attach(pages: Pages, message: EmailMessage, blob: Path) -> None:
    for number, part in enumerate(message.iter_attachments()):
        if number >= pages.limits.attachments:
            pages.cut("attachments", pages.limits.attachments)
            break
        inner = part.get_payload()
        if part.get_content_type() == "message/rfc822" and isinstance(inner, list) and isinstance(inner[0], Message):
            data: object = inner[0].as_bytes()
        else:
            data = part.get_payload(decode=True)
        if isinstance(data, bytes) and data:
            path = blob.with_name(f"attachment-{number}")
            path.write_bytes(data)
            kind = part.get_content_type()
            name = part.get_filename() or ("message.eml" if kind == "message/rfc822" else f"part-{number}")
            shown = Path(name.replace("\\", "/")).name[:255]
            pages.attachments.append({"name": shown, "media_type": kind, "path": str(path)})
