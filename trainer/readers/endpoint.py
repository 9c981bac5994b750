"""A language model behind an OpenAI-compatible endpoint that scores given tokens."""

from __future__ import annotations

import logging
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from itertools import count
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from qrag.client.flows import Retries
from qrag.client.proxies import proxy_settings
from trainer.errors import ReaderError
from trainer.readers.answers import ECHO, PROMPT_LOGPROBS, Completion, Form, NotScored, Token, log_probability
from trainer.readers.protocol import Generation, Prompt, Reply, Request, Score
from trainer.readers.wording import PLAIN, Wording, instruction, shortened

log = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS = 120.0
"""Most seconds that the endpoint may take for one prompt."""

CONNECTIONS = 4
"""Prompts at the endpoint at the same time."""

MOST_BYTES = 64 << 20
"""Most bytes of a response: every token of a prompt comes back, with its alternatives."""

SHOWN_CHARACTERS = 300
"""Most characters that are quoted of a refusal."""

PROBE = "one two three four five. " * 4 + "one two three four"
PROBE_ANSWER = " five."
PROBABLE = -3.0
"""Least mean log-probability of the probe's answer, which any language model has seen four times right before. An
endpoint that is off by one token, or scores something else, is far below it."""

_TOO_LONG = re.compile(
    rb"context_length_exceeded|maximum (context|model) length|exceeds? (the )?(available )?context", re.I
)
_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9]+")


class _TooLong(Exception):
    """The endpoint refuses a prompt because of its length."""


class EndpointReader:
    """A model at an endpoint, as a :class:`~trainer.readers.protocol.Reader`.

    Prompts go to ``/completions`` as they are, so the ``wording`` has the chat template's words where the model needs
    them. Whether the endpoint scores given tokens, and in which form, one call at the start finds out:
    :class:`~trainer.errors.ReaderError` says what is wrong where it does not.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key: str | None = None,
        wording: Wording = PLAIN,
        seconds: float = SECONDS,
        connections: int = CONNECTIONS,
        retries: Retries | None = None,
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/completions"
        self._model, self._wording = model, wording
        self._seconds, self._connections = seconds, connections
        self._retries = retries or Retries()
        # Uncompressed: a small compressed body could expand beyond MOST_BYTES.
        headers = {"Accept-Encoding": "identity"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        try:
            proxy = proxy_settings(httpx.URL(self._url))
        except (ValueError, httpx.InvalidURL) as error:
            raise ReaderError(f"The reader's address {base_url} cannot be used: {error}") from None
        self._client = httpx.Client(headers=headers, timeout=seconds, **proxy)
        try:
            self._form = self._probed()
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> str:
        """Address, model and wording: weights behind an address cannot be seen."""
        return f"{self._model}@{self._url} {self._wording!r}"

    def log_probability(self, requests: Sequence[Request]) -> Iterator[tuple[int, Score]]:
        """Each request's place and score, as the endpoint answers."""
        return self._together(self._score, requests)

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> Iterator[tuple[int, Generation]]:
        """Each prompt's place and what the model writes, as the endpoint answers."""
        return self._together(lambda prompt: self._generation(prompt, most_tokens), prompts)

    def reply(self, requests: Sequence[Request], most_tokens: int) -> Iterator[tuple[int, Reply]]:
        """Each request's place, score and what the model writes, as the endpoint answers: a prompt's once for all."""
        places: dict[Prompt, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(request.prompt, []).append(place)
        groups = list(places.values())

        def replies(group: list[int]) -> list[Reply]:
            generation = self._generation(requests[group[0]].prompt, most_tokens)
            return [Reply(self._score(requests[place]), generation) for place in group]

        for number, results in self._together(replies, groups):
            yield from zip(groups[number], results, strict=True)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _together(self, work: Callable[[Any], T], items: Sequence[Any]) -> Iterator[tuple[int, T]]:
        """Results as they come. After a failure nothing more is asked, and what was being answered still comes."""
        failure: ReaderError | None = None
        with ThreadPoolExecutor(self._connections) as pool:
            futures = {pool.submit(work, item): place for place, item in enumerate(items)}
            try:
                for future in as_completed(futures):
                    if future.cancelled():
                        continue
                    try:
                        result = future.result()
                    except ReaderError as error:
                        failure = failure or error
                        _cancel(futures)
                    else:
                        yield futures[future], result
            finally:
                _cancel(futures)
        if failure is not None:
            raise failure

    # -- one prompt ---------------------------------------------------------------------------------------------------

    def _probed(self) -> Form:
        """The form in which the endpoint scores the tokens of a prompt."""
        completion = self._completed(PROBE + PROBE_ANSWER, 1, {**ECHO.fields, **PROMPT_LOGPROBS.fields})
        problems = []
        for form in (PROMPT_LOGPROBS, ECHO):
            try:
                tokens = form.tokens(completion)
                answer = _ending(tokens, PROBE_ANSWER)
                if answer is None or not _holds(tokens, PROBE):
                    raise NotScored("its tokens are not those of the prompt")
                if (mean := log_probability(answer) / len(answer)) < PROBABLE:
                    raise NotScored(f"a text that was repeated four times has a mean log-probability of {mean:.1f}")
                return form
            except NotScored as problem:
                problems.append(f"{form.name}: {problem}")
        raise ReaderError(
            f"The endpoint {self._url} does not score given tokens ({'; '.join(problems)}). A reader needs "
            "prompt_logprobs as vLLM has them, or echo with logprobs as llama-cpp-python's server has them "
            "(started with --logits_all true)."
        )

    def _score(self, request: Request) -> Score:
        answer = self._wording.answer(request.answer)
        for shorter in shortened(request.prompt):
            text = self._wording.prompt(shorter.prompt)
            try:
                tokens = self._tokens(text + answer)
            except _TooLong:
                continue
            self._say_what_is_cut(request.prompt, shorter.contexts)
            ending = _ending(tokens, answer)
            try:
                if not _holds(tokens, instruction(shorter.prompt)):
                    raise NotScored("its tokens are not those of the prompt: does the endpoint cut long prompts?")
                ending = self._behind(text, tokens) if ending is None else ending
                value = log_probability(ending)
            except NotScored as problem:
                raise self._lied(problem) from None
            return Score(value, len(ending), len(tokens) - len(ending), shorter.contexts)
        raise self._never_fits(request.prompt)

    def _behind(self, text: str, tokens: list[Token]) -> list[Token]:
        """The tokens behind a prompt, where their texts do not tell: as many as the prompt alone does not have.

        That is so where a character is several tokens, whose texts say nothing.
        """
        alone = self._tokens(text)
        if len(alone) >= len(tokens) or any(a.text != b.text for a, b in zip(alone, tokens, strict=False)):
            raise NotScored("the answer's tokens do not begin where the prompt ends")
        return tokens[len(alone) :]

    def _generation(self, prompt: Prompt, most_tokens: int) -> Generation:
        for shorter in shortened(prompt):
            try:
                completion = self._completed(self._wording.prompt(shorter.prompt), most_tokens, {})
            except _TooLong:
                continue
            if not completion.choices or completion.usage is None:
                raise self._lied("it has no choices, or no usage")
            self._say_what_is_cut(prompt, shorter.contexts)
            return Generation(completion.choices[0].text.strip(), completion.usage.prompt_tokens, shorter.contexts)
        raise self._never_fits(prompt)

    def _tokens(self, text: str) -> list[Token]:
        try:
            return self._form.tokens(self._completed(text, 1, self._form.fields))
        except NotScored as problem:
            raise self._lied(problem) from None

    def _completed(self, text: str, most_tokens: int, fields: Mapping[str, Any]) -> Completion:
        body = {"model": self._model, "prompt": text, "max_tokens": most_tokens, "temperature": 0, **fields}
        try:
            return Completion.model_validate_json(self._sent(body))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise self._lied(f"it is no completion ({place}: {first['msg']})") from None

    def _sent(self, body: dict[str, Any]) -> bytes:
        """The response to a request that succeeded, repeated where that may help. Raises also :class:`_TooLong`."""
        paused = 0.0
        for attempt in count(1):
            try:
                status, content, asked = self._once(body)
            except httpx.TimeoutException:
                raise ReaderError(
                    f"The reader's endpoint {self._url} did not answer within {self._seconds:g} seconds. Give it fewer "
                    "prompts at a time, or more time."
                ) from None
            except httpx.RequestError as error:
                status, content, asked = 0, str(error).encode(), None
            if status == 200:
                return content
            if status in (400, 413, 422, 500) and _TOO_LONG.search(content):
                raise _TooLong
            pause = self._retries.pause(attempt, asked)
            again = status in (0, 429, 502, 503, 504)
            if not again or attempt >= self._retries.attempts or paused + pause > self._retries.seconds:
                raise self._refusal(status, content)
            paused += pause
            time.sleep(pause)
        raise AssertionError("counting never ends")

    def _once(self, body: dict[str, Any]) -> tuple[int, bytes, float | None]:
        """Status, content, and the seconds that the endpoint asks to wait before the next attempt."""
        deadline = time.monotonic() + self._seconds
        content = bytearray()
        with self._client.stream("POST", self._url, json=body) as response:
            for block in response.iter_raw():
                content += block
                if len(content) > MOST_BYTES:
                    raise ReaderError(f"The reader's endpoint {self._url} answered with more than {MOST_BYTES} bytes.")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the whole answer takes too long")
        after = response.headers.get("Retry-After", "")
        return response.status_code, bytes(content), float(after) if after.isdecimal() else None

    # -- what is said -------------------------------------------------------------------------------------------------

    def _refusal(self, status: int, content: bytes) -> ReaderError:
        quoted = " ".join(content.decode(errors="replace").split())[:SHOWN_CHARACTERS]
        if status == 0:
            return ReaderError(f"The reader's endpoint {self._url} cannot be reached: {quoted} Is it running?")
        if status in (401, 403):  # not quoted: some endpoints repeat parts of the key
            return ReaderError(f"The reader's endpoint {self._url} refuses the key: set LLM_API_KEY.")
        return ReaderError(f"The reader's endpoint {self._url} answered {status}. It says: {quoted}")

    def _lied(self, problem: object) -> ReaderError:
        return ReaderError(f"The reader's endpoint {self._url} gave an answer that cannot be right: {problem}.")

    def _never_fits(self, prompt: Prompt) -> ReaderError:
        return ReaderError(
            f"A question is longer than the endpoint {self._url} reads, without any context: {prompt.start!r}. "
            "Leave it out, or start the endpoint with a longer context."
        )

    def _say_what_is_cut(self, prompt: Prompt, contexts: int) -> None:
        if contexts < len(prompt.contexts):
            log.warning("cut contexts=%d of %d, longer than the endpoint reads", contexts, len(prompt.contexts))


def _cancel(futures: Iterable[Future[Any]]) -> None:
    """Cancel what has not begun, each by itself: what a pool drops when it is shut down is waited for forever."""
    for future in futures:
        future.cancel()


def _ending(tokens: Sequence[Token], answer: str) -> list[Token] | None:
    """The last tokens whose texts together are the answer; none where no such tokens are."""
    text = ""
    for start in range(len(tokens) - 1, -1, -1):
        text = tokens[start].text + text
        if text == answer:
            return list(tokens[start:])
        if len(text) > len(answer):
            return None
    return None


def _holds(tokens: Sequence[Token], text: str) -> bool:
    """Whether the tokens have all of a text behind its first word: nothing may be said about the first token.

    Only letters and digits of ASCII are compared: texts of other tokens, and of special ones, differ between servers.
    """
    # Some tokenizers compose accents, and then a letter is none of ASCII any more.
    joined, text = (unicodedata.normalize("NFC", one) for one in ("".join(token.text for token in tokens), text))
    return _OTHER_CHARACTERS.sub("", text.partition(" ")[2]) in _OTHER_CHARACTERS.sub("", joined)
