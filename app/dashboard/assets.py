"""Styles and scripts, served from memory under a folder that is named for their content, so browsers keep them."""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from app.core.errors import NotFound

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
FOREVER = "public, max-age=31536000, immutable"

router = APIRouter(prefix="/ui/static", include_in_schema=False)


class Asset(NamedTuple):
    """A file with its compressed form."""

    content: bytes
    zipped: bytes
    media_type: str


class Assets(NamedTuple):
    """All files by name; `digest` changes with any of them."""

    digest: str
    files: dict[str, Asset]

    def url(self, name: str) -> str:
        """Return the address of a file. Raises KeyError for an unknown one."""
        self.files[name]
        return f"/ui/static/{self.digest}/{name}"


@lru_cache(maxsize=1)
def assets() -> Assets:
    """Return the files, read once a process."""
    files, digest = {}, hashlib.sha256()
    for path in sorted(FOLDER.iterdir()):
        content = path.read_bytes()
        digest.update(path.name.encode() + b"\0" + content)
        files[path.name] = Asset(content, gzip.compress(content, 9, mtime=0), TYPES[path.suffix])
    return Assets(digest.hexdigest()[:16], files)


@router.get("/{digest}/{name}")
async def get_asset(request: Request, digest: str, name: str) -> Response:
    """A page of another version, open during a deploy, gets the present file, which its browser must not keep."""
    known = assets()
    asset = known.files.get(name)
    if asset is None:
        raise NotFound(f"{name} is not a file of the dashboard", code="asset_not_found")
    headers = {"Cache-Control": FOREVER if digest == known.digest else "no-store", "Vary": "Accept-Encoding"}
    content = asset.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = asset.zipped, "gzip"
    return Response(content, media_type=asset.media_type, headers=headers | {"X-Content-Type-Options": "nosniff"})
