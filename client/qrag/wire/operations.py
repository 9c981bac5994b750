"""Models for operators: the loaded checkpoint and its limits, changes of checkpoint, health."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from qrag.wire import examples
from qrag.wire.checks.gates import GateIn, GateOut
from qrag.wire.models import RequestModel, ResponseModel
from qrag.wire.rules import Rule


class StoppingOut(ResponseModel):
    """The stop rules that the checkpoint was calibrated for."""

    rules: list[Rule] = Field(description="those a request may name without a threshold")
    default_rule: Rule
    step_cost: float = Field(description="the default")
    budget: int = Field(description="most selections of the episodes that it was calibrated on")


class ModelOut(ResponseModel):
    """The loaded checkpoint and the limits that follow from it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MODEL]})

    name: str
    checkpoint: str = Field(description="its name in /admin/checkpoints")
    fingerprint: str = Field("", description="changes with what it selects")
    base_model: str
    dimension: int
    device: str
    storage: Literal["directory", "engines"] = Field(
        "directory", description="where documents are: in the data directory, or in PostgreSQL and Qdrant"
    )
    positions: dict[str, Any]
    stopping: StoppingOut | None = Field(description="null where the checkpoint was not calibrated")
    max_question_tokens: int
    max_chunk_tokens: int
    max_state_tokens: int
    max_steps: int
    max_beam_width: int
    max_body_bytes: int
    feedback: bool = Field(False, description="whether `POST /feedback` takes judgements: QRAG_FEEDBACK")
    keep_questions_days: int = Field(
        0, description="days for which the operator keeps what is asked; 0: not at all: QRAG_KEEP_QUESTIONS_DAYS"
    )
    training: dict[str, Any] | None


class CheckpointIn(RequestModel):
    """The checkpoint to serve from now on, and what it has to show before."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CHECKPOINT_IN]})

    checkpoint: str = Field(min_length=1, max_length=255, description="a folder's name, or `configured`")
    gate: GateIn | None = Field(
        default=None, description="questions on which it must not lose against the one that is served"
    )
    canary: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="the share of `POST /retrieve` that it answers too, unseen, once its vectors are complete; until "
        "the same call without `canary` ends that, the former one is served",
    )


class CanaryOut(ResponseModel):
    """Requests that both checkpoints answered, since this process began with them."""

    share: float
    compared: int
    dropped: int = Field(description="not played, because the service was busy")
    failed: int = Field(description="without an answer of the new checkpoint, as for a question too long for it")
    overlap: float | None = Field(
        description="mean share of the selected chunks that both selected, of those that either did; null before the "
        "first"
    )


class CheckpointChangeOut(ResponseModel):
    """A change under way, or one that failed or was refused."""

    checkpoint: str
    state: Literal["loading", "embedding", "gate", "canary", "failed", "refused"]
    progress: float | None = Field(
        description="while embedding the share of all chunks, at the gate that of its questions; else null"
    )
    error: str | None
    canary: CanaryOut | None = Field(default=None, description="null without one")


class CheckpointsOut(ResponseModel):
    """The checkpoint that is served, those that could be, and the change between them."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CHECKPOINTS]})

    served: str
    available: list[str] = Field(description="folders of QRAG_CHECKPOINTS_DIR, and `configured` for QRAG_CHECKPOINT")
    change: CheckpointChangeOut | None
    gate: GateOut | None = Field(default=None, description="the outcome of the last gate; null before the first")
    vector_sets: int = Field(description="2 while the vectors of another checkpoint are being made, or kept")


class Health(ResponseModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


class Readiness(ResponseModel):
    """The model is loaded and the store is open."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready"}]})

    status: Literal["ready"] = "ready"
