"""URLs of pages: which URLs name the same page, and its domain."""

from __future__ import annotations

import re
import string
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

import idna

from app.core.errors import InvalidInput
from app.documents.models import MAX_URL_BYTES
from app.documents.text import clean_line

TRACKING = frozenset(
    {
        "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "utm_id", "gclid", "gclsrc", "dclid",
        "gbraid", "wbraid", "fbclid", "msclkid", "mc_cid", "mc_eid", "_hsenc", "_hsmi", "hsctatracking", "igshid",
        "igsh", "yclid", "ysclid", "twclid", "ttclid", "li_fat_id", "mkt_tok", "srsltid", "_ga", "_gl",
    }
)  # fmt: skip
# Parameters that identify a visit, if their value looks like a token.
SESSION = frozenset(
    {
        "jsessionid", "phpsessid", "aspsessionid", "asp.net_sessionid", "cfid", "cftoken", "sessionid", "session_id",
        "session", "sessid", "sess", "sid", "oscsid", "xtcsid", "zenid",
    }
)  # fmt: skip
DEFAULT_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"(?=[^0-9]*[0-9])[A-Za-z0-9_.!-]{16,200}")
_PATH_SESSION = re.compile(r";(?:jsessionid|phpsessid|sid)=[^/;]*", re.IGNORECASE)
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
# Characters that stay as they are: RFC 3986's reserved ones, and the percent sign.
_SAFE = "!#$%&'()*+,/:;=?@[]~"
_PLAIN = re.compile(r"[A-Za-z0-9!$&'()*+,/:;=?@\[\]~._-]*")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")


def check_url(url: str) -> str:
    """Return the URL without surrounding blanks. Raises InvalidInput for an invalid URL."""
    cleaned = clean_line(url, MAX_URL_BYTES + 1)
    if cleaned is None:
        raise InvalidInput("url: it is empty", errors=[{"field": "url", "message": "it is empty"}])
    if len(cleaned.encode()) > MAX_URL_BYTES:
        raise InvalidInput(
            f"url: at most {MAX_URL_BYTES} bytes", errors=[{"field": "url", "message": f"over {MAX_URL_BYTES} bytes"}]
        )
    _split(cleaned)
    return cleaned


def canonical(url: str) -> str:
    """Return the form shared by every spelling of the URL.

    Host in lower case and as ASCII, no default port, no fragment, no tracking or session parameters, percent-encoding
    only where it is needed, and a path.
    """
    parts = _split(url)
    pairs = [pair for pair in parts.query.split("&") if pair and not _is_dropped(pair)]
    user, at, host = parts.netloc.rpartition("@")
    plain = urlunsplit((parts.scheme, f"{user}{at}{host.lower()}", parts.path, "&".join(pairs), ""))
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        return plain
    try:
        netloc = f"{user}{at}{_host_and_port(parts)}"
    except ValueError:  # a port that is no number
        return plain
    path = _remove_dots(_PATH_SESSION.sub("", _encode(parts.path))) or "/"
    normal = urlunsplit((parts.scheme, netloc, path, _encode("&".join(pairs)), ""))
    return normal if len(normal) <= MAX_URL_BYTES else plain


def without_session(url: str) -> str:
    """Return the URL without parameters that identify the visit; unchanged if it has none."""
    parts = _split(url)
    pairs = parts.query.split("&")
    others = [pair for pair in pairs if not _is_session(pair)]
    path = _PATH_SESSION.sub("", parts.path)
    if len(others) == len(pairs) and path == parts.path:
        return url
    return parts._replace(path=path, query="&".join(others)).geturl()


def site_host(url: str) -> str:
    """Return the host in lower case, as ASCII and without `www.`; empty for an invalid URL."""
    try:
        return _ascii_host(urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def spellings(url: str) -> list[str]:
    """Return the canonical URL, and those of the same page with and without `www.`, by http and https."""
    first = canonical(url)
    parts = urlsplit(first)
    bare = parts.netloc.removeprefix("www.")
    others = [
        parts._replace(scheme=scheme, netloc=netloc).geturl()
        for scheme in (parts.scheme, *DEFAULT_PORTS)
        for netloc in (bare, f"www.{bare}")
    ]
    return list(dict.fromkeys([first, *others]))


def _is_dropped(pair: str) -> bool:
    name = pair.partition("=")[0].lower()
    return name in TRACKING or name.startswith("utm_") or _is_session(pair)


def _is_session(pair: str) -> bool:
    name, _, value = pair.partition("=")
    return name.lower() in SESSION and _TOKEN.fullmatch(value) is not None


def _host_and_port(parts: SplitResult) -> str:
    host, port = _ascii_host(parts.hostname or ""), parts.port
    literal = f"[{host}]" if ":" in host else host
    return literal if port in (None, DEFAULT_PORTS[parts.scheme]) else f"{literal}:{port}"


def _ascii_host(host: str) -> str:
    host = host.rstrip(".").lower()
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return host


def _encode(text: str) -> str:
    """Return the text with percent-encoding where it is needed, in upper case."""
    if _PLAIN.fullmatch(text):
        return text
    return quote(_ESCAPE.sub(_decode_escape, text), safe=_SAFE, errors="replace")


def _decode_escape(match: re.Match[str]) -> str:
    letter = chr(int(match[1], 16))
    return letter if letter in _UNRESERVED else match[0].upper()


def _remove_dots(path: str) -> str:
    """Resolve `.` and `..` (RFC 3986, section 5.2.4)."""
    if "/." not in path:
        return path
    resolved: list[str] = []
    segments = path.split("/")
    for segment in segments[1:]:
        if segment == "..":
            del resolved[-1:]
        elif segment != ".":
            resolved.append(segment)
    if segments[-1] in (".", ".."):
        resolved.append("")
    return "/" + "/".join(resolved)


def domain(url: str) -> str | None:
    """Return host and port as written."""
    return _split(url).netloc.rpartition("@")[2][:300] or None


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InvalidInput(f"url: {error}", errors=[{"field": "url", "message": str(error)}]) from error
