"""The service's own exceptions: one tree, each leaf a stable problem code.

::

    ServiceError
    ├── InvalidRequest          400 invalid_request
    │   └── InvalidJson         400 invalid_json
    ├── InvalidEncoding         400 invalid_encoding
    ├── Unauthorized            401 unauthorized
    ├── Forbidden               403 forbidden
    ├── CrossSiteRequest        403 cross_site_request
    ├── MisdirectedRequest      421 misdirected_request
    ├── TooManyRequests         429 too_many_requests
    ├── BodyTooLarge            413 body_too_large
    ├── UnsupportedMediaType    415 unsupported_media_type
    │   └── UnsupportedEncoding 415 unsupported_media_type
    ├── UnreadableDocument      422 document_corrupt
    │   ├── EncryptedDocument   422 document_encrypted
    │   └── DocumentTooComplex  422 document_too_complex
    ├── UnknownCheckpoint       404 unknown_checkpoint
    ├── UnknownChunk            404 unknown_chunk
    ├── FeedbackOff             404 feedback_off
    ├── QuestionsOff            404 questions_off
    ├── CheckpointInUse         409 checkpoint_in_use
    ├── CheckpointUnusable      422 checkpoint_unusable
    ├── ExpectationUnresolved   422 expectation_unresolved
    ├── DocumentsChanged        409 documents_changed
    ├── TitleIsEmbedded         409 title_is_embedded
    ├── MetadataTooLong         409 metadata_too_long
    ├── QuestionTooLong         422 question_too_long
    ├── ChunkOutOfScope         422 chunk_out_of_scope
    ├── InvalidContinuation     422 invalid_continuation
    ├── ContinuationOutdated    409 continuation_outdated
    ├── NotCalibrated           422 not_calibrated
    ├── CannotDecompose         422 cannot_decompose
    ├── TooManyQuestions        422 too_many_questions
    ├── Overloaded              503 overloaded
    ├── NoLanguageModel         501 no_language_model
    ├── LanguageModelFailed     502 language_model_failed
    ├── LanguageModelTooSlow    504 language_model_too_slow
    └── IndexingFailed          500 indexing_failed

    ConfigurationError          the configuration is unsafe or impossible
    └── KeysError               the file of keys cannot be read or changed

    RightMissing                a route or an MCP tool does not say which right it needs

Exceptions of the :mod:`index` package get their codes in :mod:`service.http.problems`, the one place where an exception
becomes a response.
"""

from __future__ import annotations

from index.errors import QRagError


class ConfigurationError(QRagError):
    """The configuration is unsafe or impossible; the message says what to do."""


class KeysError(ConfigurationError):
    """The file of keys cannot be read or changed."""


class RightMissing(Exception):
    """A route or an MCP tool does not say which right it needs: a fault in the program, which does not start."""


class ServiceError(Exception):
    """Base of the errors that the service answers with.

    ``detail`` is shown to the caller: it says what was wrong and what to do about it.
    """

    status: int = 500
    code: str = "internal_error"
    title: str = "Internal error"

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class InvalidRequest(ServiceError):
    """The request is malformed before any schema can be applied to it."""

    status, code, title = 400, "invalid_request", "Invalid request"


class InvalidJson(InvalidRequest):
    """The body is no JSON document in UTF-8."""

    code, title = "invalid_json", "Invalid JSON"


class InvalidEncoding(ServiceError):
    """The text is not valid in the encoding it claims."""

    status, code, title = 400, "invalid_encoding", "Text is not valid in its encoding"


class Unauthorized(ServiceError):
    """No API key, or one the service does not know."""

    status, code, title = 401, "unauthorized", "Authentication required"


class Forbidden(ServiceError):
    """The API key is known, but lacks the right or the collection."""

    status, code, title = 403, "forbidden", "The API key does not allow this"


class CrossSiteRequest(ServiceError):
    """A service without keys was asked to do something by a web page of another site."""

    status, code, title = 403, "cross_site_request", "Sent by another site"


class MisdirectedRequest(ServiceError):
    """A service without keys was addressed by a name that is not its own."""

    status, code, title = 421, "misdirected_request", "Not this service's name"


class TooManyRequests(ServiceError):
    """The API key has as many requests under way as it may have."""

    status, code, title = 429, "too_many_requests", "Too many requests at once"


class BodyTooLarge(ServiceError):
    """The request body is longer than the configured limit."""

    status, code, title = 413, "body_too_large", "Body too large"


class UnsupportedMediaType(ServiceError):
    """The body is of a type that no parser here reads."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class UnsupportedEncoding(UnsupportedMediaType):
    """The body is packed in a way that is not unpacked here."""


class UnreadableDocument(ServiceError):
    """The file is damaged, or is not what its media type says."""

    status, code, title = 422, "document_corrupt", "Document cannot be read"


class EncryptedDocument(UnreadableDocument):
    """The file needs a password."""

    code, title = "document_encrypted", "Document is encrypted"


class DocumentTooComplex(UnreadableDocument):
    """Reading the file exceeded the parser's time, memory or output limit."""

    code, title = "document_too_complex", "Document exceeds the parsing limits"


class DocumentsChanged(ServiceError):
    """A document was deleted while a question was being answered from it, or while a request waited for it."""

    status, code, title = 409, "documents_changed", "Documents changed meanwhile"


class UnknownCheckpoint(ServiceError):
    """There is no checkpoint of this name."""

    status, code, title = 404, "unknown_checkpoint", "Unknown checkpoint"


class UnknownChunk(ServiceError):
    """The document has no chunk of this index."""

    status, code, title = 404, "unknown_chunk", "Unknown chunk"


class FeedbackOff(ServiceError):
    """The operator collects no feedback."""

    status, code, title = 404, "feedback_off", "No feedback is collected"


class QuestionsOff(ServiceError):
    """The operator keeps no questions."""

    status, code, title = 404, "questions_off", "No questions are kept"


class CheckpointInUse(ServiceError):
    """The checkpoint is the one that is served."""

    status, code, title = 409, "checkpoint_in_use", "Checkpoint is being served"


class CheckpointUnusable(ServiceError):
    """The checkpoint is damaged, of another format, or does not fit into memory."""

    status, code, title = 422, "checkpoint_unusable", "Checkpoint cannot be served"


class ExpectationUnresolved(ServiceError):
    """A question of a gate expects evidence that stands nowhere in the documents."""

    status, code, title = 422, "expectation_unresolved", "Expected evidence is nowhere"


class ChunkOutOfScope(ServiceError):
    """The request names a chunk that is not among those it searches, whether it is elsewhere or nowhere."""

    status, code, title = 422, "chunk_out_of_scope", "Chunk is not searched"


class InvalidContinuation(ServiceError):
    """The continuation is no token of this service, or the request contradicts it."""

    status, code, title = 422, "invalid_continuation", "Invalid continuation"


class ContinuationOutdated(ServiceError):
    """The documents or the checkpoint that a continuation rests on are no longer what they were."""

    status, code, title = 409, "continuation_outdated", "Continuation is outdated"


class NotCalibrated(ServiceError):
    """The request wants a stop rule for which the checkpoint has no calibration."""

    status, code, title = 422, "not_calibrated", "Checkpoint is not calibrated for this stop rule"


class CannotRerank(ServiceError):
    """The request wants a second look and there is no cross-encoder."""

    status, code, title = 422, "cannot_rerank", "There can be no second look"


class CannotDecompose(ServiceError):
    """The request wants its question to be split and there is no language model."""

    status, code, title = 422, "cannot_decompose", "Question cannot be split"


class TooManyQuestions(ServiceError):
    """The request asks for more episodes at once than the service ever holds."""

    status, code, title = 422, "too_many_questions", "Too many questions at once"


class TitleIsEmbedded(ServiceError):
    """The title is part of what was embedded: changing it in place would leave vectors of the former title."""

    status, code, title = 409, "title_is_embedded", "Title is embedded"


class MetadataTooLong(ServiceError):
    """A change would make the metadata of a document longer than it may be, with what is there."""

    status, code, title = 409, "metadata_too_long", "Metadata is too long"


class QuestionTooLong(ServiceError):
    """The question does not fit the state tower's input."""

    status, code, title = 422, "question_too_long", "Question is too long"


class Overloaded(ServiceError):
    """More retrievals are waiting than the service accepts."""

    status, code, title = 503, "overloaded", "Service is overloaded"


class NoLanguageModel(ServiceError):
    """No language model is configured that could write an answer."""

    status, code, title = 501, "no_language_model", "No language model is configured"


class LanguageModelFailed(ServiceError):
    """The language model's endpoint cannot be reached, refuses, or answers with something else than a completion."""

    status, code, title = 502, "language_model_failed", "The language model failed"


class LanguageModelTooSlow(ServiceError):
    """The language model took longer than the service waits for an answer."""

    status, code, title = 504, "language_model_too_slow", "The language model is too slow"


class IndexingFailed(ServiceError):
    """The document was stored but could not be indexed."""

    status, code, title = 500, "indexing_failed", "Indexing failed"
