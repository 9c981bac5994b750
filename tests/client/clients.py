"""Both clients behind one face, so that the same tests hold for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from qrag import AsyncClient, Client


class _Awaited:
    """An :class:`AsyncClient` that blocks."""

    def __init__(self, client: AsyncClient, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            result = method(*arguments, **named)
            return self._iterate(result) if isinstance(result, AsyncIterator) else self._runner.run(result)

        return call

    def _iterate(self, entries: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(entries, None)

        while (entry := self._runner.run(following())) is not None:
            yield entry


class Connect:
    """Makes clients of one kind, and closes them; with ``pauses`` they do not sleep, but note how long they would."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._runner = asyncio.Runner()
        self._clients: list[Client] = []

    def __call__(self, url: str, key: str | None = None, pauses: list[float] | None = None, **settings: Any) -> Client:
        """A client of the server there."""
        if self._kind == "blocking":
            if pauses is not None:
                settings["sleep"] = pauses.append
            client = Client(url, key, **settings)
        else:
            if pauses is not None:

                async def note(seconds: float) -> None:
                    pauses.append(seconds)

                settings["sleep"] = note
            client = cast(Client, _Awaited(AsyncClient(url, key, **settings), self._runner))
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Close every client."""
        for client in self._clients:
            client.close()
        self._runner.close()
