"""Signatures are those of Standard Webhooks, and no tenant can sign as another."""

from __future__ import annotations

import base64

import pytest

from app.core.errors import Rejected
from app.deliveries.signing import encode_secret, secrets_of, signature
from tests.support.databases import SettingsEnv


def test_vector_of_the_specification() -> None:
    """Made with the Python package `standardwebhooks` 1.1.0."""
    secret = base64.b64decode("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3")
    body = b'{"type":"watch.changed","timestamp":"2026-11-22T09:00:00Z","data":{"id":"w_1"}}'
    header = signature([secret], "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", 1700000000, body)
    assert header == "v1,azaGHsvJIxMZFtpuwI5qEN9GGJfniWLpQsu1yrI1Y10="
    assert encode_secret(secret) == "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"


def test_each_tenant_has_its_secrets_and_the_previous_one_signs_too(settings_env: SettingsEnv) -> None:
    settings_env(webhook_secrets="new-one-0123456789 old-one-0123456789")
    mine, theirs = secrets_of("mine"), secrets_of("theirs")
    assert len({*mine, *theirs}) == 4
    assert all(len(secret) == 32 for secret in mine)
    both = signature(mine, "msg_1", 1, b"{}").split()
    assert both == [signature([secret], "msg_1", 1, b"{}") for secret in mine]
    settings_env(webhook_secrets="old-one-0123456789")
    assert secrets_of("mine") == mine[1:]


def test_secrets_default_to_a_derivation_of_the_api_secret(
    settings_env: SettingsEnv,
) -> None:
    assert len(secrets_of("default")) == 1
    settings_env(api_secret="", demo=True)
    with pytest.raises(Rejected, match="no secret"):
        secrets_of("default")
