"""Every setting: one list of name, unit and default, read from MILLRACE_* variables or a .env file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from app.core.errors import ConfigError

PREFIX = "MILLRACE_"
MIN_SECRET_CHARACTERS = 32
MIN_DIFFERENT_CHARACTERS = 8  # different ones
Program = Literal["api", "relay", "worker", "scheduler"]


class SecretFiles(PydanticBaseSettingsSource):
    """`MILLRACE_X_FILE` names a file with the value of `MILLRACE_X`, as mounted secrets are."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text().strip(), field_name, False
        except OSError as error:
            raise ConfigError(f"{PREFIX}{field_name.upper()}_FILE: {error.strerror}: {path}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{PREFIX}{field_name.upper()}_FILE: not a text: {path}") from error

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


def _with_old_name(name: str, old_name: str) -> AliasChoices:
    """Read the variable under either name; the new one wins."""
    return AliasChoices(f"{PREFIX}{name}", f"{PREFIX}{old_name}")


class _Read(BaseSettings):
    """Sources of values; the first source with a value applies."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        extra="ignore",
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls), dotenv_settings


class Settings(_Read):
    """The names are those of the variables without prefix; units are in the name or the description."""

    role: Literal["", "api", "worker", "scheduler", "relay", "cli", "lane"] = Field(
        "", description="Role of this process; set by its start command."
    )
    demo: bool = Field(False, description="Demo mode: missing secrets are allowed and reported at start-up.")

    host: str = Field("127.0.0.1", description="Address the api listens on.")
    port: int = Field(52100, ge=0, le=65535, description="Port the api listens on.")
    url: str = Field("", description="Address of the api for the command line; by default http://host:port.")
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default=[], description="Origins that browsers may call from, comma separated."
    )
    trusted_proxies: str = Field("127.0.0.1", description="Addresses whose X-Forwarded-For is trusted.")
    head_timeout_s: float = Field(10.0, gt=0, description="Seconds a caller may take to send the head of a request.")
    max_connections_per_address: int = Field(
        1000, ge=1, description="Connections an address may hold to the api; trusted proxies may hold any number."
    )
    max_body_bytes: int = Field(10 * 1024 * 1024, ge=1024, description="Largest request body, bytes.")

    max_upload_bytes: int = Field(200 * 1024 * 1024, ge=1024, description="Largest file that may be uploaded, bytes.")

    watch_folder: Path | None = Field(
        None, description="Folder whose files are indexed, scanned each minute; workers must have access to it."
    )
    watch_collection: str = Field("", description="Name of the collection that files of the watched folder go to.")

    data_dir: Path = Field(Path("data"), description="Folder of all data of this machine.")
    database_url: str = Field("", description="SQLAlchemy URL; by default SQLite in the data folder.")
    database_pool: int = Field(10, ge=2, le=200, description="SQL connections a process may hold.")
    database_prepared: bool = Field(True, description="Prepared statements; off behind a pooling PgBouncer.")
    sqlite_sync: Literal["normal", "full"] = Field("normal", description="SQLite: 'full' also survives power loss.")
    blob_url: str = Field(
        "", description="Store of originals: file:/path or s3://bucket/prefix; by default in the data folder."
    )
    s3_endpoint: str = Field("", description="Address of an S3-compatible store; by default that of AWS.")
    s3_region: str = Field("us-east-1", description="Region of the bucket.")
    s3_access_key_id: str = Field("", description="Key id of the store; by default the machine's role.")
    s3_secret_access_key: SecretStr = Field(SecretStr(""), description="Secret of that key.")

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis or Valkey: redis://, rediss:// or redis+sentinel://.",
    )

    api_key: SecretStr = Field(SecretStr(""), description="API key of the command line; by default the API secret.")
    profile: str = Field("", description="Profile of the command line: a server and its key.")
    profiles: Path = Field(
        Path("~/.config/millrace/config.toml"), description="File with the profiles of the command line."
    )
    api_secret: SecretStr = Field(SecretStr(""), description="Bearer secret of the API, at least 32 characters.")

    rate_limits: Literal["on", "off"] = Field("on", description="Rate limits of API keys.")

    worker_threads: int = Field(32, ge=1, le=512, description="Jobs a worker process runs at once.")
    programs: Annotated[list[Program], NoDecode] = Field(
        default=["api", "relay", "worker", "scheduler"],
        description="Programs that supervisord starts here, comma separated; the others run elsewhere.",
    )
    program: str = Field("", description="Name of this program on its log lines; set by supervisord.")
    worker_count: int = Field(1, ge=1, le=64, description="Worker processes supervisord starts.")
    grace_s: float = Field(30.0, ge=0, description="Seconds a stopping worker waits for running jobs.")
    modules: Annotated[list[str], NoDecode] = Field(
        default=[], description="Python modules with your own kinds of job, comma separated."
    )
    retry_delays: Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], NoDecode] = Field(
        default=[60.0, 120.0, 240.0], description="Seconds before each retry, comma separated."
    )
    health_port: int = Field(0, ge=0, le=65535, description="Port of a worker's /health; 0 takes any free one.")
    health_ports: Annotated[dict[str, int], NoDecode] = Field(
        default={}, description="Ports of /health by program, such as relay=52110; set for supervisord's programs."
    )
    health_host: str = Field("127.0.0.1", description="Address of a worker's /health.")
    loop_stall_s: float = Field(
        15.0, gt=0, description="Seconds without a turn of its event loop after which a stalled worker exits."
    )
    worker_dead_s: float = Field(
        12.0, gt=1, description="Seconds without a new heartbeat after which a worker is dead."
    )
    beat_s: float = Field(3.0, gt=0, description="Seconds between a worker's heartbeats.")

    sandboxes: int = Field(
        0,
        ge=0,
        le=64,
        validation_alias=_with_old_name("SANDBOXES", "LANES"),
        description="Sandbox processes of a worker for computing jobs; 0 = one per core.",
    )
    sandbox_memory_mb: int = Field(
        1024,
        ge=64,
        validation_alias=_with_old_name("SANDBOX_MEMORY_MB", "LANE_MEMORY_MB"),
        description="Memory a computing job may take, MiB.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level logged.")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="'auto': JSON unless on a terminal.")

    log_days: int = Field(14, ge=1, description="Days that the log lines of jobs are kept.")
    job_days: int = Field(30, ge=0, description="Days that succeeded and cancelled jobs are kept; 0: for ever.")
    failed_job_days: int = Field(90, ge=0, description="Days that failed jobs are kept; 0: for ever.")
    tick_days: int = Field(30, ge=2, description="Days that the outcomes of a schedule's ticks are kept.")
    metrics_requests: Literal["on", "off"] = Field("on", description="Whether durations of requests are stored.")
    metrics_days: int = Field(90, ge=1, description="Days that durations of requests and operations are kept.")
    audit_days: int = Field(400, ge=0, description="Days that the audit log is kept; 0: for ever.")

    webhook_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret that signs incoming webhooks, 32 characters or more; without it all are refused.",
    )
    change_days: int = Field(365, ge=0, description="Days that changes of pages are kept; 0: for ever.")
    intake_days: int = Field(90, ge=1, description="Days that delivered events are kept.")
    intake_max_bytes: int = Field(
        10 * 1024**3, ge=1024, description="Bytes of delivered events that are kept; the oldest beyond are deleted."
    )
    webhook_secrets: SecretStr = Field(
        SecretStr(""), description="Secrets that sign completion webhooks, newest first; by default the API secret."
    )
    webhook_private: bool = Field(False, description="Whether webhooks may go to private addresses and plain http.")
    webhook_timeout_s: float = Field(20.0, gt=0, le=60, description="Seconds a webhook may take to answer.")

    search_engine: Literal["embedded", "qdrant"] = Field("embedded", description="Engine that answers searches.")
    qdrant_url: str = Field(
        "http://127.0.0.1:6333",
        description="Address of Qdrant; for a cluster its nodes, comma separated.",
    )
    qdrant_api_key: SecretStr = Field(SecretStr(""), description="API key of Qdrant.")
    qdrant_collection: str = Field(
        "millrace",
        pattern=r"^[A-Za-z0-9_-]{1,80}$",
        description="Prefix of the names of collections in Qdrant.",
    )
    qdrant_timeout_s: float = Field(5.0, gt=0, le=60, description="Seconds Qdrant may take to answer a search.")
    qdrant_replicas: int = Field(1, ge=1, le=16, description="Nodes of a cluster that store each vector.")
    qdrant_shards: int = Field(1, ge=1, le=256, description="Number of shards of a new index.")
    embedder: Literal["wordllama", "fastembed", "tei", "openai"] = Field(
        "wordllama", description="Source of vectors: the built-in model, a local ONNX model, or a server."
    )
    embedder_url: str = Field("", description="Address of text-embeddings-inference; openai: with its /v1.")
    embedder_model: str = Field("", description="Name of the server's model; fastembed: its folder, or a fetched one.")
    embedder_dimension: int | None = Field(None, ge=1, le=65_535, description="Numbers in a vector of that model.")
    embedder_api_key: SecretStr = Field(SecretStr(""), description="API key of that server.")
    embedder_query_prompt: str = Field("", description="Prefix of a query, as the model requires.")
    embedder_document_prompt: str = Field("", description="Prefix of an indexed text, as the model requires.")
    embedder_tokenizer: Path | None = Field(
        None, description="tokenizer.json of the server's model, for counting tokens; else the built-in model's."
    )
    next_embedder: Literal["", "wordllama", "fastembed", "tei", "openai"] = Field(
        "", description="Source of vectors of the next index generation, built while the current one is in use."
    )
    next_embedder_url: str = Field("", description="Like EMBEDDER_URL, for the next generation.")
    next_embedder_model: str = Field("", description="Like EMBEDDER_MODEL, for the next generation.")
    next_embedder_dimension: int | None = Field(None, ge=1, le=65_535, description="Numbers in a vector of that model.")
    next_embedder_api_key: SecretStr = Field(SecretStr(""), description="API key of that server.")
    next_embedder_query_prompt: str = Field("", description="Like EMBEDDER_QUERY_PROMPT, for the next generation.")
    next_embedder_document_prompt: str = Field(
        "", description="Like EMBEDDER_DOCUMENT_PROMPT, for the next generation."
    )
    next_embedder_tokenizer: Path | None = Field(None, description="Like EMBEDDER_TOKENIZER, for the next generation.")
    chunk_tokens: int = Field(256, ge=16, le=8192, description="Tokens a chunk may have.")
    chunk_overlap_tokens: int = Field(50, ge=0, description="Tokens neighbouring chunks share.")
    search_semantic_weight: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Weight of meaning relative to words; by default 1.4, and 3 with a transformer.",
    )
    search_weak_similarity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Cosine below which a hit by meaning alone is weak; by default 0.35, and 0.3 with a transformer.",
    )
    search_rrf_k: int = Field(60, ge=1, description="k of reciprocal rank fusion.")
    changedetection_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Address of changedetection.io, which watches pages; without it no page is watched.",
    )
    changedetection_api_key: SecretStr = Field(
        SecretStr(""), description="API key of changedetection.io, from its settings."
    )
    changedetection_notify_url: str = Field(
        "", description="Address at which changedetection.io reaches this api; by default MILLRACE_URL."
    )
    auto_watch: Annotated[list[str], NoDecode] = Field(
        ["firecrawl", "crawl"],
        description="Sources whose pages are watched automatically, comma separated; all, or empty for none.",
    )
    auto_watch_every_s: int = Field(
        3600, ge=1, description="Seconds between two checks of an automatically watched page."
    )
    auto_watch_per_minute: float = Field(120.0, gt=0, description="Watches created or removed per minute at most.")
    changedetection_timeout_s: float = Field(
        15.0, gt=0, le=300, description="Seconds changedetection.io may take to answer."
    )
    fetcher: Literal["auto", "builtin"] = Field(
        "auto", description="Fetcher of pages: auto uses Firecrawl if it is configured."
    )
    fetch_private: bool = Field(False, description="Whether pages on private addresses may be fetched.")
    fetch_timeout_s: float = Field(20.0, gt=0, description="Seconds a page may take to arrive.")
    fetch_connect_timeout_s: float = Field(5.0, gt=0, description="Seconds a page's server may take to connect.")
    fetch_max_bytes: int = Field(10 * 1024 * 1024, ge=1024, description="Largest page fetched, bytes.")
    fetch_user_agent: str = Field(
        "Millrace/0.1",
        pattern=r"^[!-~][ -~]{0,499}$",
        description="User-Agent sent to fetched pages; robots.txt is evaluated for it.",
    )
    fetch_robots: Literal["on", "off"] = Field("on", description="Whether robots.txt is obeyed.")
    fetch_host_delay_s: float = Field(
        1.0, ge=0, le=3600, description="Seconds between two requests to one host, over all workers."
    )
    crawl_retry_delays: Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], NoDecode] = Field(
        default=[5.0, 20.0], description="Seconds before a crawl tries a page again, comma separated."
    )
    crawl_pattern_pages: int = Field(
        50,
        ge=0,
        description="Pages of a crawl whose addresses differ in parameters or dates only; 0 for any number.",
    )
    fetch_javascript: Literal["off", "auto", "always"] = Field(
        "auto", description="When pages are opened in Chromium: auto, those that are empty without their scripts."
    )
    fetch_javascript_timeout_s: float = Field(30.0, ge=1, description="Seconds a page may take in Chromium.")
    chromium_path: str = Field("", description="Chromium to open pages in; by default the one on PATH.")
    chromium_sandbox: bool = Field(
        True, description="Chromium's sandbox; off where it is unavailable: as root, in most containers."
    )
    chromium_count: int = Field(2, ge=1, le=64, description="Pages a worker has open in Chromium at once.")
    chromium_memory_mb: int = Field(1024, ge=256, description="Memory all of Chromium may take for a page, MiB.")

    firecrawl_url: str = Field(
        "", description="Address of Firecrawl, such as http://firecrawl:3002; without it the built-in fetcher is used."
    )
    firecrawl_api_key: SecretStr = Field(SecretStr(""), description="API key of Firecrawl.")
    firecrawl_timeout_s: float = Field(
        30.0, gt=0, le=600, description="Seconds Firecrawl may take to start a crawl or to report its state."
    )
    firecrawl_proxy_timeout_s: float = Field(
        130.0, gt=0, le=600, description="Seconds Firecrawl may take to answer proxied requests under /v2."
    )
    firecrawl_proxy_auth: Literal["on", "off"] = Field(
        "on", description="Whether /v2 requires an API key; off only for a private network."
    )
    firecrawl_max_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Largest response accepted from Firecrawl, bytes."
    )

    @field_validator("firecrawl_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", value):
            raise ValueError("must be an address such as http://firecrawl:3002")
        return value

    @field_validator("firecrawl_api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[!-~]*", value.get_secret_value()):
            raise ValueError("must be printable ASCII without blanks")
        return value

    @model_validator(mode="after")
    def _whole_embedders(self) -> Self:
        server = ("url", "model", "dimension")
        needed = {"tei": server, "openai": server, "fastembed": ("model",)}
        for which in ("embedder", "next_embedder"):
            kind = getattr(self, which)
            missing = [name for name in needed.get(kind, ()) if not getattr(self, f"{which}_{name}")]
            if missing:
                names = ", ".join(f"{PREFIX}{which}_{name}".upper() for name in missing)
                raise ValueError(f"{PREFIX}{which.upper()}={kind} needs {names}")
        return self

    @field_validator(
        "auto_watch", "cors_origins", "crawl_retry_delays", "modules", "retry_delays", "programs", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("host", "health_host")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        return value.removeprefix("[").removesuffix("]")

    @field_validator("health_ports", mode="before")
    @classmethod
    def _split_ports(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        return {program.strip(): port.strip() for program, _, port in pairs}

    @property
    def sql_url(self) -> str:
        """Return the database's URL, with the default spelled out."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'millrace.db').resolve()}"

    @property
    def api_url(self) -> str:
        return self.url or self.local_url

    @property
    def local_url(self) -> str:
        """Return the address of the api on this machine."""
        return f"http://{netloc(self.host, self.port)}"

    @property
    def sandbox_count(self) -> int:
        return self.sandboxes or max(2, os.cpu_count() or 2)

    def check_secrets(self) -> None:
        """Raises ConfigError with every weak or missing secret; an api refuses to start with one."""
        secret, webhooks = self.api_secret.get_secret_value(), self.webhook_secret.get_secret_value()
        if self.demo:
            return
        faults = [f"{PREFIX}API_SECRET {fault}" for fault in _faults(secret)]
        if not secret:
            faults = [f"{PREFIX}API_SECRET is missing (make one: openssl rand -hex 32)"]
        if webhooks:
            faults += [f"{PREFIX}WEBHOOK_SECRET {fault}" for fault in _faults(webhooks)]
        if faults:
            raise ConfigError("; ".join(faults))


def netloc(host: str, port: int) -> str:
    """Return host and port for a URL: an IPv6 address in brackets, the loopback address for all addresses."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _faults(secret: str) -> list[str]:
    """Return the reasons why the secret is weak."""
    faults = []
    if len(secret) < MIN_SECRET_CHARACTERS:
        faults.append(f"is shorter than {MIN_SECRET_CHARACTERS} characters")
    if secret != secret.strip() or len(set(secret)) < MIN_DIFFERENT_CHARACTERS:
        faults.append("is too easy to guess")
    return faults


def has_trace_receiver() -> bool:
    """Return True if OpenTelemetry's own variables name a receiver of spans."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(os.environ.get(name) for name in names)


def sentry_dsn() -> str:
    """Return Sentry's own variable."""
    return os.environ.get("SENTRY_DSN", "")


class _Location(_Read):
    """The one setting that locates the others."""

    data_dir: Path = Settings.model_fields["data_dir"].default


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process. Raises ConfigError that lists every invalid one."""
    try:
        # The file in the data folder holds values that `millrace up` generated (a secret, the port of its Redis); .env
        # wins.
        return Settings(_env_file=(_Location().data_dir / ".env", ".env"))
    except ValidationError as error:
        faults = [
            f"{PREFIX}{str(e['loc'][0]).upper().removeprefix(PREFIX)}: {e['msg']}" if e["loc"] else e["msg"]
            for e in error.errors()
        ]
        raise ConfigError("; ".join(faults)) from error


@contextmanager
def overridden(**values: object) -> Iterator[None]:
    """Override these settings for this process: `overridden(data_dir=folder)`."""
    names = {f"{PREFIX}{name.upper()}": str(value) for name, value in values.items()}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    get_settings.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        get_settings.cache_clear()
