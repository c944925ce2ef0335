"""The scrape route of the old service: one page now, or a batch of pages at Firecrawl."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from app.api.http.auth import Caller, Identity
from app.api.http.errors import problem
from app.api.models.base import documented
from app.api.models.web import ScrapeAnswer
from app.clients.firecrawl_errors import FirecrawlTimeout, PageFault
from app.core.errors import InvalidInput
from app.documents import urls
from app.sources.scraping import batch
from app.sources.scraping.scrape import Handling, PageRequest, scrape
from app.tenants import scopes

router = APIRouter(prefix="/api", tags=["intake"])

NO_EXTRACT = "extract is deprecated, use /v2/extract"
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: documented(ScrapeAnswer, "`success: false` with `error` if the fault is the page's."),
    400: {"description": "`extract` is not supported."},
    408: {"description": "The page took longer than `timeout`."},
    502: {"description": "Firecrawl refused, or its answer is invalid."},
    504: {"description": "Firecrawl did not answer in time."},
}

Format = Literal[
    "markdown", "html", "rawHtml", "links", "images", "summary", "screenshot", "screenshot@fullPage", "branding"
]


def _address(url: str) -> str:
    try:
        cleaned = urls.check_url(url)
        parts = urlsplit(cleaned)
        _ = parts.port
    except InvalidInput as error:
        raise ValueError(error.message) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("only http:// and https:// addresses can be scraped")
    return cleaned


Address = Annotated[str, AfterValidator(_address)]
Tags = Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=200)]


class _CamelModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class ScrapeParser(_CamelModel):
    type: Literal["pdf"] = "pdf"
    max_pages: Annotated[int, Field(ge=1, le=10_000)] = 100


class ScrapeAction(BaseModel):
    """A step in the browser before the page is read; all other keys go to Firecrawl."""

    model_config = ConfigDict(extra="allow")

    type: Literal["wait", "click", "write", "press", "scroll", "screenshot", "scrape", "executeJavascript"]


class ScrapeRequest(_CamelModel):
    """A scrape command. `start` takes `url` or `urls`; the other commands take the `jobId` of a batch."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        json_schema_extra={"examples": [{"url": "https://example.org/docs", "formats": ["markdown"], "maxAge": 0}]},
    )

    command: Literal["start", "status", "cancel", "errors"] = "start"
    url: Address | None = None
    urls: Annotated[list[Address], Field(min_length=1)] | None = None
    job_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")] | None = None
    timeout: Annotated[int, Field(ge=1000, le=300_000, description="Milliseconds.")] = 60_000
    wait_for: Annotated[int, Field(ge=0, le=60_000, description="Milliseconds.")] | None = None
    max_chars: Annotated[int, Field(ge=100, le=1_000_000, description="For clients that page; no effect.")] = 100_000
    start_index: Annotated[int, Field(ge=0, description="For clients that page; no effect.")] = 0
    result_handling: Handling = "saveAndReturn"
    force_rescrape: bool = False
    clean_scrape: bool = True
    max_age: Annotated[int, Field(ge=0, description="Maximum age of a cached page in milliseconds.")] = 172_800_000
    proxy: Literal["basic", "stealth", "auto"] = "auto"
    block_ads: bool = True
    only_main_content: bool = True
    include_tags: Tags | None = None
    exclude_tags: Tags | None = None
    formats: Annotated[list[Format], Field(min_length=1)] = ["markdown", "html"]
    headers: dict[str, str] | None = None
    actions: Annotated[list[ScrapeAction], Field(max_length=100)] | None = None
    parsers: Annotated[list[ScrapeParser], Field(max_length=10)] = []
    extract: Any = Field(None, description="Refused: use /v2/extract.")

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.command != "start" and self.job_id is None:
            raise ValueError(f"jobId is needed for {self.command}")
        if self.command == "start" and (self.url is None) == (self.urls is None):
            raise ValueError("start takes either url or urls")
        return self

    def page_request(self) -> PageRequest:
        """Return the request with the options that differ from Firecrawl's defaults."""
        names = {
            "only_main_content", "wait_for", "include_tags", "exclude_tags", "headers", "actions", "proxy",
            "block_ads", "parsers",
        }  # fmt: skip
        options = self.model_dump(by_alias=True, include=names, exclude_none=True)
        defaults = {"onlyMainContent": True, "proxy": "auto", "blockAds": True, "waitFor": 0}
        return PageRequest(
            url=self.url or "",
            formats=tuple(dict.fromkeys(self.formats)),
            timeout_ms=self.timeout,
            max_age_ms=self.max_age,
            options={name: value for name, value in options.items() if value not in ([], {}, defaults.get(name))},
            clean=self.clean_scrape,
            force=self.force_rescrape,
            handling=self.result_handling,
        )


@router.post("/v2/scrape", summary="Scrape a page, or a batch of pages", responses=_ANSWERS)
async def scrape_page(request: Request, caller: Caller, body: ScrapeRequest) -> Response:
    """Answers from the cache if it has a page of `maxAge` or younger. Batches run at Firecrawl and are not cached."""
    if body.extract is not None:
        return problem(request.scope, 400, NO_EXTRACT, code="extract_deprecated")
    try:
        data = await _run(caller, body)
    except PageFault as error:
        fault = {"message": error.message, "code": error.code, "url": body.url}
        return JSONResponse({"success": False, "command": body.command, "data": None, "error": fault})
    except FirecrawlTimeout as error:
        wait_s = error.retry_after_s
        headers = {} if wait_s is None else {"Retry-After": str(math.ceil(wait_s))}
        return problem(request.scope, 408, error.message, code=error.code, headers=headers)
    return JSONResponse({"success": True, "command": body.command, "data": data, "error": None})


async def _run(caller: Identity, body: ScrapeRequest) -> dict[str, Any]:
    tenant = caller.tenant
    if body.command == "start":
        request = body.page_request()
        return await (scrape(tenant, request) if body.urls is None else batch.start(tenant, body.urls, request))
    assert body.job_id is not None
    commands = {"status": batch.get_status, "cancel": batch.cancel, "errors": batch.list_errors}
    return await commands[body.command](tenant, body.job_id, is_operator=caller.may(scopes.OPERATOR))
