"""Definitions are checked when they are declared, and an accepted payload can be loaded again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    Field,
    PlainSerializer,
    Secret,
    SecretBytes,
    SecretStr,
    computed_field,
    field_serializer,
)

from app.core.errors import InvalidInput
from app.core.nesting import MAX_DEPTH
from app.jobs import definition as definitions
from app.jobs.definition import Debounce, Job, Rate
from app.jobs.definition_checks import DefinitionError
from app.jobs.ledger.enqueue import tries_of
from app.jobs.payloads import payload_dict, payload_json


@pytest.fixture(autouse=True)
def _kinds_of_this_test() -> Iterator[None]:
    """Remove the kinds that a test declared."""
    before = dict(definitions._registry)
    yield
    definitions._registry.clear()
    definitions._registry.update(before)


def declare(**options: Any) -> type[Job]:
    return type("Receipt", (Job,), {"__module__": __name__}, kind="tests.receipt", **options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("time_limit_s", "60"),
        ("time_limit_s", 0),
        ("time_limit_s", float("inf")),
        ("grace_s", -1),
        ("max_tries", 0),
        ("max_tries", 2.5),
        ("max_tries", True),
        ("retry_delays", (60)),
        ("retry_delays", "60"),
        ("retry_delays", (60, "90")),
        ("retry_delays", (-1,)),
        ("stages", ["extract", "embed"]),
        ("stages", {"extract": 0}),
        ("payload_version", 0),
        ("memory_mb", "300"),
        ("running_cap", 0),
        ("priority", 101),
        ("priority", "high"),
        ("webhook_url", "example.org/hook"),
        ("on_end", "call_me"),
        ("unique_key", 7),
        ("unique", 60),
        ("start_rate", 5),
        ("queue", "quick"),
        ("open_to", "everybody"),
        ("retries", 3),
    ],
)
def test_invalid_option_is_named_at_its_declaration(option: str, value: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"^Receipt: .*{option}"):
        declare(**{option: value})


@pytest.mark.parametrize("kind", ["a b", " ", "x" * 101, 7, "tests.\n"])
def test_invalid_kind_name_is_refused(kind: Any) -> None:
    with pytest.raises(DefinitionError, match="kind must be a name"):
        type("Receipt", (Job,), {"__module__": __name__}, kind=kind)


def test_every_option_accepts_valid_values() -> None:
    made = declare(
        time_limit_s=60, grace_s=0, max_tries=2, retry_delays=[0, 1.5], stages={"a": 1, "b": 2.5}, payload_version=2,
        memory_mb=300, running_cap=4, priority=-100, webhook_url="https://example.org/hook", on_end=print,
        unique_key=len, unique=Debounce(1, 2), start_rate=Rate(5), queue="bulk", open_to="write",
    )  # fmt: skip
    assert made.kind == "tests.receipt"


def test_no_delays_mean_no_retry() -> None:
    assert tries_of(declare(retry_delays=())) == 1
    assert tries_of(declare(retry_delays=(60,))) == 2
    assert tries_of(declare()) > 2


def test_two_modules_cannot_declare_one_kind() -> None:
    declare()
    with pytest.raises(DefinitionError, match=r"defined twice: by tests.*Receipt and shop.jobs.Receipt"):
        type("Receipt", (Job,), {"__module__": "shop.jobs"}, kind="tests.receipt")


def test_a_module_that_is_loaded_again_replaces_its_definition() -> None:
    first, second = declare(), declare()
    assert definitions.definition("tests.receipt") is second is not first


def _alias() -> None:
    class Swapped(Job, kind="tests.swapped"):
        net: int = Field(alias="gross")
        gross: int = Field(alias="net")


def _excluded() -> None:
    class Excluded(Job, kind="tests.excluded"):
        token: int = Field(1, exclude=True)


def _excluded_inside() -> None:
    class Inner(BaseModel):
        token: int = Field(1, exclude=True)

    class Outer(Job, kind="tests.outer"):
        inner: list[Inner] | None = None


def _secret(annotation: Any) -> Callable[[], None]:
    def declare_secret() -> None:
        fields = {"__module__": __name__, "__annotations__": {"token": annotation}}
        type("Login", (Job,), fields, kind="tests.login")

    return declare_secret


@pytest.mark.parametrize(
    ("declaration", "reason"),
    [
        (_alias, "is the name of another field"),
        (_excluded, "'token' is excluded"),
        (_excluded_inside, r"'inner.token' is excluded"),
        (_secret(SecretStr), "'token' is a secret"),
        (_secret(SecretBytes | None), "'token' is a secret"),
        (_secret(dict[str, list[SecretStr]]), "'token' is a secret"),
        (_secret(Secret[int]), "'token' is a secret"),
    ],
)
def test_field_that_cannot_be_stored_is_refused(declaration: Callable[[], None], reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        declaration()


class Colour(Enum):
    RED = "red"


class Line(BaseModel):
    net: Decimal = Field(alias="netAmount")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def gross(self) -> Decimal:
        return self.net * 2


class Order(Job, kind="tests.order"):
    number: int = Field(alias="orderNo")
    name: str = Field("", validation_alias=AliasChoices("customer", "client"))
    shown: str = Field("", serialization_alias="label")
    lines: list[Line] = []
    at: datetime | None = None
    took: timedelta | None = None
    id: UUID | None = None
    colour: Colour | None = None
    tags: frozenset[str] = frozenset()
    pair: tuple[int, float] | None = None
    ratio: float = 0
    extra: Any = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> Decimal:
        return sum((line.gross for line in self.lines), Decimal(0))


ORDERS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    orderNo=st.integers(-(2**60), 2**60),
    customer=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20),
    lines=st.lists(st.builds(dict, netAmount=st.decimals(allow_nan=False, allow_infinity=False, places=4)), max_size=3),
    at=st.none() | st.datetimes(timezones=st.just(UTC)),
    took=st.none() | st.timedeltas(timedelta(-1000), timedelta(1000)),
    id=st.none() | st.uuids(),
    colour=st.none() | st.just(Colour.RED),
    tags=st.frozensets(st.sampled_from("abc")),
    pair=st.none() | st.tuples(st.integers(-99, 99), st.floats(allow_nan=False, allow_infinity=False)),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    extra=st.none() | st.dictionaries(st.sampled_from("xy"), st.integers(0, 9) | st.booleans(), max_size=2),
)


@given(ORDERS)
def test_accepted_payload_loads_unchanged(values: dict[str, Any]) -> None:
    order = Order.load(values, 1)
    assert Order.load(payload_dict(order), 1) == order


def test_the_stored_payload_has_the_names_of_the_fields() -> None:
    order = Order.load({"orderNo": 7, "client": "ann", "lines": [{"netAmount": "1.5"}]}, 1)
    stored = payload_dict(order)
    assert (stored["number"], stored["name"], stored["lines"]) == (7, "ann", [{"net": "1.5"}])
    assert not {"orderNo", "client", "label", "total"} & stored.keys()


def test_strict_fields_load_their_stored_form() -> None:
    class Exact(Job, kind="tests.exact"):
        id: UUID = Field(strict=True)
        at: Annotated[datetime, Field(strict=True)]

    job = Exact(id=UUID(int=1), at=datetime(2026, 1, 1, tzinfo=UTC))
    assert Exact.load(payload_dict(job), 1) == job


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_without_a_json_form_are_refused(value: float) -> None:
    with pytest.raises(InvalidInput, match="ratio: Input should be a finite number"):
        Order.load({"orderNo": 1, "ratio": value}, 1)
    with pytest.raises(InvalidInput, match="not a JSON number"):
        payload_json(Order(orderNo=1, extra={"deep": [value]}))


def test_words_such_as_nan_are_plain_text() -> None:
    assert payload_dict(Order(orderNo=1, extra="NaN or -Infinity"))["extra"] == "NaN or -Infinity"


class Weird(Job, kind="tests.weird"):
    number: int

    @field_serializer("number")
    def in_words(self, number: int) -> str:
        return "seven" if number == 7 else str(number)


def test_payload_that_its_kind_cannot_load_is_not_stored() -> None:
    assert payload_dict(Weird(number=8)) == {"number": "8"}
    with pytest.raises(InvalidInput, match="number: Input should be a valid integer"):
        payload_json(Weird(number=7))


def test_a_serializer_in_an_annotation_is_found_too() -> None:
    class Shouted(Job, kind="tests.shouted"):
        numbers: list[Annotated[int, PlainSerializer(lambda number: f"n{number}")]]

    with pytest.raises(InvalidInput, match=r"numbers\.0: "):
        payload_json(Shouted(numbers=[1]))


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1, 255, 900])
def test_deep_payloads_are_refused(levels: int) -> None:
    value: Any = 1
    for level in range(levels - 1):  # the payload itself is the first
        value = {"x": value} if level % 2 else [value]
    order = Order(orderNo=1, extra=value)
    if levels <= MAX_DEPTH:
        assert payload_dict(order)["extra"] == value
    else:
        with pytest.raises(InvalidInput) as refusal:
            payload_json(order)
        assert refusal.value.code == "payload_depth"


def test_an_invalid_payload_names_its_fields() -> None:
    with pytest.raises(InvalidInput) as refusal:
        Order.load({"ratio": "x", "colour": "blue", "nmae": 1}, 1)
    message = str(refusal.value)
    assert message.startswith("tests.order: the payload is not valid: orderNo: Field required; ")
    assert "ratio: " in message
    assert "colour: " in message
    assert "nmae: Extra inputs are not permitted" in message
    with pytest.raises(InvalidInput, match=r"; and 3 more$"):
        Order.load({"orderNo": 1, **dict.fromkeys("abcdefgh", 1)}, 1)
