"""Extract an e-mail (.eml): its text, sender, recipients and date; attachments become files."""

from __future__ import annotations

import email
import email.policy
import re
from email.errors import MessageError
from email.headerregistry import HeaderRegistry
from email.message import EmailMessage, Message, MIMEPart
from pathlib import Path
from typing import Any

from app.core import charsets
from app.core.errors import InvalidInput
from app.documents.extract.html_parser import to_markdown
from app.documents.extract.limits import USUAL, ExtractLimits
from app.documents.extract.pages import Pages
from app.documents.extract.plain import decode, decode_html

_BROKEN = (MessageError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
# The rest of a longer header is dropped: the library's parser is slow.
MAX_HEADER_CHARACTERS = 16 * 1024
# Labels in encoded words (RFC 2047) and in parameters (RFC 2231).
_WORD_LABEL = re.compile(r"=\?([^?]*)(?=\?[bq]\?)", re.IGNORECASE)
_PARAMETER_LABEL = re.compile(r"(\*\s*=\s*\"?)([^'\";]*)(?=')")
_UNKNOWN = "unknown-8bit"


class _SafeHeaders(HeaderRegistry):
    """Parses headers after replacing their labels: the library would look them up among all codecs of Python."""

    def __call__(self, name: str, value: str) -> Any:
        text = _WORD_LABEL.sub(lambda match: "=?" + _codec(match[1]), value[:MAX_HEADER_CHARACTERS])
        return super().__call__(name, _PARAMETER_LABEL.sub(lambda match: match[1] + _codec(match[2]), text))


def _codec(label: str) -> str:
    return charsets.encoding_of(label.partition("*")[0]) or _UNKNOWN


_POLICY = email.policy.default.clone(header_factory=_SafeHeaders())


def extract(blob: Path, limits: ExtractLimits = USUAL) -> Pages:
    pages = Pages(limits)
    try:
        message = email.message_from_bytes(blob.read_bytes(), policy=_POLICY)
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
    data, label = part.get_payload(decode=True), part.get_param("charset")
    if not isinstance(data, bytes):
        return ""
    decoder = decode_html if part.get_content_type() == "text/html" else decode
    return decoder(data, label if isinstance(label, str) else None)


def _attach(pages: Pages, message: EmailMessage, blob: Path) -> None:
    for number, part in enumerate(message.iter_attachments()):
        if number >= pages.limits.attachments:
            pages.cut("attachments", pages.limits.attachments)
            break
        inner = part.get_payload() if part.is_multipart() else None  # of a text it would be decoded by its label
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
