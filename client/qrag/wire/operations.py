"""Models for operators: the loaded checkpoint and its limits, changes of checkpoint, health."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from qrag.wire import examples
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
    base_model: str
    dimension: int
    device: str
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
    """The checkpoint to serve from now on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"checkpoint": "tuned-on-minutes"}]})

    checkpoint: str = Field(min_length=1, max_length=255, description="a folder's name, or `configured`")


class CheckpointChangeOut(ResponseModel):
    """A change under way, or one that failed."""

    checkpoint: str
    state: Literal["loading", "embedding", "failed"]
    progress: float | None = Field(description="share of all chunks that are embedded; null unless embedding")
    error: str | None


class CheckpointsOut(ResponseModel):
    """The checkpoint that is served, those that could be, and the change between them."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CHECKPOINTS]})

    served: str
    available: list[str] = Field(description="folders of QRAG_CHECKPOINTS_DIR, and `configured` for QRAG_CHECKPOINT")
    change: CheckpointChangeOut | None
    vector_sets: int = Field(description="2 while the vectors of another checkpoint are being made, or kept")


class Health(ResponseModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


class Readiness(ResponseModel):
    """The model is loaded and the store is open."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ready"}]})

    status: Literal["ready"] = "ready"
