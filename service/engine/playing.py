"""Questions that no request waits for, played by the engine between those of requests."""

from __future__ import annotations

from concurrent.futures import Future

from index.encoders.encoder import Encoder
from index.episodes.episode import ChunkTokens, Episode, Limits, Step
from index.episodes.rules import StopBelow
from index.errors import UnknownDocument
from index.storage.protocols import Catalogue
from index.storage.vectors import ChunkAddress
from service.engine.engine import Engine
from service.engine.loaded import Loaded
from service.engine.runs import Run


def play(
    engine: Engine, loaded: Loaded, catalogue: Catalogue, question: str, collection: str, max_steps: int
) -> Future[list[ChunkAddress]]:
    """Start the episode of a question over a collection; its result are the chunks in the order of selection.

    It ends by the stop rule that the checkpoint was calibrated for. Raises :class:`~service.errors.Overloaded`, and
    :class:`~index.errors.UnknownCollection`; the future has :class:`~index.errors.UnknownDocument` where a document was
    deleted meanwhile.
    """
    encoder = loaded.encoder
    scope = loaded.scopes.scope(collection)

    def read_chunk(position: int) -> ChunkTokens:
        address = scope.address(position)
        chunks = catalogue.chunks(address.uid, first=address.number, limit=1)
        if not chunks:
            raise UnknownDocument("The document was deleted meanwhile.")
        return ChunkTokens(encoder.state_tokens([encoder.chunk_text(chunks[0].heading, chunks[0].text)])[0], 0)

    limits = Limits(max_steps=max_steps, stop=calibrated_stop(encoder))
    tokens = encoder.question_tokens(question)
    episode = Episode(scope.scope, limits, read_chunk, encoder.stopping, question=tokens)
    selected = Future[list[ChunkAddress]]()

    def notify(event: Step | Exception | None) -> None:
        if isinstance(event, Exception):
            selected.set_exception(event)
        elif event is None:
            selected.set_result([scope.address(step.position) for step in episode.steps])

    engine.submit([Run(encoder, episode, notify)])
    return selected


def calibrated_stop(encoder: Encoder) -> StopBelow | None:
    """What ends an episode of which nobody says anything else; none where the checkpoint is not calibrated."""
    source = encoder.config.stopping
    return None if source is None or source.calibration is None else source.calibration.rule_for()
