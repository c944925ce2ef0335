"""Jobs or tenants that have subscribers in this process, each a topic with a channel in Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from app.core.errors import Unavailable
from app.jobs.events.subscribers import Subscriber
from app.jobs.events.subscription import Subscription

S = TypeVar("S", bound=Subscriber)


class Topic(Generic[S]):
    """A job or a tenant with its subscribers."""

    __slots__ = ("subscribers",)

    def __init__(self) -> None:
        self.subscribers: set[S] = set()

    def close(self) -> None:
        """Called after the last subscriber has left."""


T = TypeVar("T", bound=Topic[Any])


class Topics(Generic[T, S]):
    """The topics of one kind. `prefix` + key is the channel; `on_count` gets +1 or -1 for each subscriber."""

    def __init__(
        self, subscription: Subscription, new_topic: Callable[[], T], on_count: Callable[[int], None], prefix: str = ""
    ) -> None:
        self._subscription = subscription
        self._new_topic = new_topic
        self._on_count = on_count
        self._prefix = prefix
        self._closing = False
        self.by_key: dict[str, T] = {}

    def get(self, key: str) -> T | None:
        return self.by_key.get(key)

    def subscribers(self) -> list[S]:
        return [subscriber for topic in self.by_key.values() for subscriber in topic.subscribers]

    def add(self, key: str, subscriber: S) -> None:
        """Collect the topic's events for this subscriber from now on. Raises Unavailable while the process stops."""
        if self._closing:
            raise Unavailable("this process is stopping", code="stopping", retry_after_s=1)
        topic = self.by_key.get(key)
        if topic is None:
            topic = self.by_key[key] = self._new_topic()
            self._subscription.want(self._prefix + key)
        topic.subscribers.add(subscriber)
        self._on_count(1)

    def drop(self, key: str, subscriber: S) -> None:
        """Forget the subscriber, and the topic with its last one; may be repeated."""
        topic = self.by_key.get(key)
        if topic is None or subscriber not in topic.subscribers:
            return
        topic.subscribers.remove(subscriber)
        self._on_count(-1)
        if not topic.subscribers:
            del self.by_key[key]
            self._subscription.unwant(self._prefix + key)
            topic.close()

    async def wait_confirmed(self, key: str) -> None:
        """Return when Redis has confirmed the topic's channel, or cannot soon."""
        await self._subscription.wait_confirmed(self._prefix + key)

    def hang_up(self) -> None:
        """End all subscriptions; new ones are refused."""
        self._closing = True
        for subscriber in self.subscribers():
            subscriber.hang_up()
