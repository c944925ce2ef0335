"""The HTTP status of each class of error."""

from __future__ import annotations

from app.core.errors import (
    AppError,
    Conflict,
    InvalidInput,
    LimitReached,
    NotAllowed,
    NotFound,
    Rejected,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

STATUS: dict[type[AppError], int] = {
    TooLarge: 413,
    Unsupported: 415,
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    Unauthenticated: 401,
    NotAllowed: 403,
    LimitReached: 429,
    Unavailable: 503,
    Rejected: 502,
}


def status_of(error: AppError) -> int:
    """Return the status of the closest class in the table, 500 for none."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
