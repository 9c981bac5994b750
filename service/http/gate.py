"""What every request passes first: its API key, or its host where there are no keys, and the limits of key and body."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, Overloaded, ServiceError, TooManyRequests, Unauthorized
from service.http.hosts import OwnHosts
from service.http.problems import problem_response
from service.http.rights import Rights, route_path
from service.http.unpacking import Unpacker
from service.keys import EVERYTHING, Access, Keys
from service.settings import Settings

UPLOAD_PATH = "/documents"
"""The path whose bodies may have ``QRAG_MAX_BODY_BYTES``."""

OTHER_BODY_BYTES = 1 << 20
"""Longest body of anything that is not an upload."""

_WITH_A_SLASH = re.compile(r"(?!/(?:page|docs)/)(?:/[A-Za-z0-9_:@-][A-Za-z0-9._:@-]*)+/")
"""Paths of the interface with a slash at the end, which clients often add."""

MOST_DIGITS = 18
"""Digits of a length beyond which no body is accepted, whatever the limit; Python refuses to read thousands."""


class Gate:
    """ASGI middleware around the whole application, whose routes have these rights."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys, rights: Rights) -> None:
        self._app = app
        self._keys = keys
        self._rights = rights
        self._hosts = OwnHosts(settings.host, settings.allowed_hosts, settings.cors_origins)
        self._running: Counter[str] = Counter()
        """Requests under way by the name of their key."""
        self._most_running = settings.max_requests_per_key
        self._upload_bytes = settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, 403, 413, 421 or 429, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _WITH_A_SLASH.fullmatch(route_path(scope)):
            scope["path"] = scope["path"][:-1]
        answered = False
        upgrades = any(name == b"upgrade" for name, _ in scope["headers"])

        async def noting_send(message: Message) -> None:
            nonlocal answered
            answered = True
            if upgrades and message["type"] == "http.response.start":
                # Nothing here is upgraded, and the server would read what follows as another request.
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            await self._let_in(scope, receive, noting_send)
        except asyncio.CancelledError:  # at shutdown, when the time for finishing requests is over
            if answered:
                raise
            error = Overloaded("The service is shutting down. Try again shortly.", retry_after=5)
            await problem_response(error)(scope, receive, send)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            access = self._access(scope)
        except ServiceError as error:
            await problem_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["access"] = access
        if access.name is None:
            await self._pass(scope, receive, send)
        elif self._running[access.name] >= self._most_running:
            too_many = TooManyRequests(
                f"This key has {self._most_running} requests under way, the most it may have. Wait for one of them.",
                retry_after=1,
            )
            await problem_response(too_many)(scope, receive, send)
        else:
            self._running[access.name] += 1
            try:
                await self._pass(scope, receive, send)
            finally:
                self._running[access.name] -= 1

    def _access(self, scope: Scope) -> Access:
        """What the request may do.

        Raises :class:`~service.errors.ServiceError` where it may not do what it asks for.
        """
        if not self._keys.required:
            self._hosts.check(scope)
            return EVERYTHING
        right = self._rights.needed(scope["method"], route_path(scope))
        if right == "open":
            return EVERYTHING
        authorization = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = authorization.partition(b" ")
        access = self._keys.access(key.strip())
        if access is None or scheme.lower() != b"bearer":
            raise Unauthorized("Send a valid key: Authorization: Bearer KEY.")
        access.require_right(right)
        return access

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        limit = self._upload_bytes if route_path(scope) == UPLOAD_PATH else OTHER_BODY_BYTES
        too_large = BodyTooLarge(f"The body may have at most {limit} bytes. Send less at once.")
        declared = headers.get(b"content-length", b"0")
        digits = declared.lstrip(b"0")
        if digits.isdigit() and (len(digits) > MOST_DIGITS or int(digits) > limit):
            await problem_response(too_large)(scope, receive, send)
            return
        encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        unpacker = None
        if encoding not in {"", "identity"}:
            try:
                unpacker = Unpacker(encoding)
            except ServiceError as error:
                await problem_response(error)(scope, receive, send)
                return
            # What follows reads the unpacked body, which has another length.
            packed = {b"content-encoding", b"content-length"}
            scope["headers"] = [header for header in scope["headers"] if header[0] not in packed]
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            if unpacker is not None and message["type"] == "http.request":
                final = not message.get("more_body", False)
                body = unpacker.unpack(message.get("body", b""), limit - received, final=final)
                message = {**message, "body": body}
            received += len(message.get("body", b""))
            if received > limit:
                raise too_large
            return message

        await self._app(scope, counting_receive, send)
