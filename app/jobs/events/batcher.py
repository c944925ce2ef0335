"""Questions of many coroutines, answered together in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batcher(Generic[Question, Answer]):
    """Collect the questions that are asked while one batch is answered, and answer them as the next.

    After a restart thousands of clients come back at once: each costs a place in a batch, not a round trip. All calls
    come from one event loop.
    """

    def __init__(
        self,
        answer: Callable[[list[Question]], Awaitable[Sequence[Answer]]],
        *,
        name: str,
        max_batch: int | None = None,
    ) -> None:
        """`answer` returns one answer for each question, in their order; what it raises, each asker of the batch gets.

        `name` is that of the task. Without `max_batch` all waiting questions are one batch.
        """
        self._answer = answer
        self._name = name
        self._max_batch = max_batch
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self.task: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Return the answer of the next batch."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._answer_all(), name=self._name)
        return await future

    async def _answer_all(self) -> None:
        while self._waiting:
            size = self._max_batch or len(self._waiting)
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            try:
                answers = await self._answer([question for question, _ in batch])
            except Exception as error:  # noqa: BLE001 - every asker of the batch gets it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
