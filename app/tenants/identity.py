"""Who makes a request: tenant, scopes and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.tenants import audit, scopes


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller: tenant, scopes and key, and the id of the request."""

    tenant: str
    request_id: str | None
    scopes: frozenset[str] = scopes.ALL
    key_id: str | None = None
    rate_limits: Mapping[str, str] = field(default_factory=dict)

    @property
    def actor(self) -> str:
        """The name of the caller in the audit log."""
        return self.key_id or audit.SECRET

    def may(self, scope: str) -> bool:
        """Return True if the caller has the scope read, write, admin or operator."""
        return scopes.allows(self.scopes, scope)

    def kinds(self, scope: str) -> tuple[str, ...] | None:
        """Return the kinds of job that the scope reaches, as names or prefixes with `*`; None means all."""
        return None if self.may(scope) else scopes.names(self.scopes, "kind")

    def collections(self, scope: str) -> tuple[str, ...] | None:
        """Return the collections that the scope reaches, as names or prefixes with `*`; None means all."""
        return None if self.may(scope) else scopes.names(self.scopes, "collection")

    def may_kind(self, kind: str, scope: str) -> bool:
        """Return True if the caller may read (`read`) or start and change (`write`) jobs of this kind."""
        names = self.kinds(scope)
        return names is None or scopes.among(kind, names)
