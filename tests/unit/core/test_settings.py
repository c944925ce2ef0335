"""Settings come from variables, secret files and .env; whatever is wrong is said at once, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core import redis
from app.core.db import Database
from app.core.errors import ConfigError
from app.core.settings import Settings, get_settings
from tests.support.databases import SettingsEnv

GOOD = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c"
WRONG = {
    "port": "eighty",
    "worker_threads": "0",
    "grace_s": "-1",
    "log_level": "loud",
    "role": "boss",
    "retry_delays": "60,soon",
    "worker_dead_s": "1",
    "sqlite_sync": "maybe",
    "max_body_bytes": "1",
    "demo": "perhaps",
}


def test_every_wrong_value_is_reported_in_one_line(settings_env: SettingsEnv) -> None:
    settings_env(**WRONG)
    with pytest.raises(ConfigError) as refusal:
        get_settings()
    for name in WRONG:
        assert f"MILLRACE_{name.upper()}" in refusal.value.message
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("delays", ["-1", "nan", "inf", "1,,x"])
def test_invalid_delay_is_refused(settings_env: SettingsEnv, delays: str) -> None:
    settings_env(retry_delays=delays)
    with pytest.raises(ConfigError, match="MILLRACE_RETRY_DELAYS"):
        get_settings()


def test_lists_are_split_at_commas(settings_env: SettingsEnv) -> None:
    settings_env(retry_delays="1, 2.5 ,3", modules="a.b, c", cors_origins="")
    settings = get_settings()
    assert (settings.retry_delays, settings.modules, settings.cors_origins) == ([1.0, 2.5, 3.0], ["a.b", "c"], [])


def test_without_any_setting_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings()
    assert (settings.port, settings.worker_threads, settings.retry_delays) == (52100, 32, [60.0, 120.0, 240.0])
    assert settings.sql_url == f"sqlite:///{tmp_path / 'data' / 'millrace.db'}"


def test_secret_may_be_in_a_file_and_the_variable_wins(
    settings_env: SettingsEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    path.write_text(f"  {GOOD}\n")
    monkeypatch.delenv("MILLRACE_API_SECRET")
    settings_env(api_secret_file=path)
    assert get_settings().api_secret.get_secret_value() == GOOD
    settings_env(api_secret="x" * 40)
    assert get_settings().api_secret.get_secret_value() == "x" * 40


def test_missing_secret_file_is_named(settings_env: SettingsEnv, tmp_path: Path) -> None:
    settings_env(redis_url_file=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"MILLRACE_REDIS_URL_FILE: No such file or directory: .*nowhere"):
        get_settings()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b""])
def test_a_secret_file_that_holds_no_text_is_a_config_error(
    settings_env: SettingsEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    monkeypatch.delenv("MILLRACE_API_SECRET")
    settings_env(api_secret_file=path)
    with pytest.raises(ConfigError, match="MILLRACE_API_SECRET"):
        get_settings().check_secrets()


@pytest.mark.parametrize(("names", "expected"), [(["LANES"], (3, 512)), (["LANES", "SANDBOXES"], (5, 512))])
def test_sandboxes_are_also_set_by_their_old_names(
    monkeypatch: pytest.MonkeyPatch, settings_env: SettingsEnv, names: list[str], expected: tuple[int, int]
) -> None:
    for name, value in zip(names, ("3", "5"), strict=False):
        monkeypatch.setenv(f"MILLRACE_{name}", value)
    monkeypatch.setenv("MILLRACE_LANE_MEMORY_MB", "512")
    settings_env()
    assert (get_settings().sandboxes, get_settings().sandbox_memory_mb) == expected


def test_a_wrong_number_of_sandboxes_is_named_by_its_variable(settings_env: SettingsEnv) -> None:
    settings_env(sandboxes=100)
    with pytest.raises(ConfigError, match=r"^MILLRACE_SANDBOXES: "):
        get_settings()


def test_env_file_of_the_working_directory_wins(
    settings_env: SettingsEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".env").write_text("MILLRACE_PORT=1001\nMILLRACE_SANDBOXES=3\n")
    (tmp_path / ".env").write_text("MILLRACE_PORT=1002\n")
    settings_env()
    assert (get_settings().port, get_settings().sandboxes) == (1002, 3)
    settings_env(port=1003)
    assert get_settings().port == 1003


@pytest.mark.parametrize(
    ("secret", "fault"),
    [
        ("", "missing"),
        ("Sh0rt-s3cret", "shorter than 32"),
        ("a" * 40, "too easy"),
        ("abababababababababababababababababab", "too easy"),
        (f" {GOOD} ", "too easy"),
        ("tiny", "shorter .* too easy"),
    ],
)
def test_a_weak_secret_is_refused(settings_env: SettingsEnv, secret: str, fault: str) -> None:
    settings_env(api_secret=secret)
    with pytest.raises(ConfigError, match=f"MILLRACE_API_SECRET .*{fault}") as refusal:
        get_settings().check_secrets()
    assert not secret.strip() or secret.strip() not in refusal.value.message
    settings_env(demo="1")
    get_settings().check_secrets()


def test_a_strong_secret_passes(settings_env: SettingsEnv) -> None:
    settings_env(api_secret=GOOD)
    get_settings().check_secrets()


def test_secrets_are_not_printed(settings_env: SettingsEnv) -> None:
    settings_env(api_secret=GOOD, redis_url="redis://:hush@127.0.0.1:1/0")
    assert GOOD not in repr(get_settings())
    assert "hush" not in repr(get_settings())


@pytest.mark.parametrize("url", ["mysql://u@h/d", "no url", "postgresql://h:port/d", "sqlite+nothing:///x", "://"])
def test_url_of_an_unsupported_database_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="MILLRACE_DATABASE_URL"):
        Database(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:6379", "127.0.0.1:6379", "redis://127.0.0.1:port/0", ""])
def test_url_that_is_not_of_redis_is_a_config_error(settings_env: SettingsEnv, url: str) -> None:
    settings_env(redis_url=url)
    with pytest.raises(ConfigError, match="MILLRACE_REDIS_URL"):
        redis.ping()
