"""For operators: health, readiness, metrics, and what is loaded."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from index.encoders.checkpoint import CheckpointConfig
from qrag.wire.operations import Health, ModelOut, Readiness, StoppingOut
from qrag.wire.retrieval import MAX_BEAM_WIDTH, MAX_STEPS
from service.errors import Forbidden, Overloaded
from service.http.dependencies import AppServices, RequestAccess
from service.http.problems import responses
from service.http.rights import needs

router = APIRouter(tags=["operations"])


@router.get("/healthz", summary="Alive")
@needs("open")
async def healthz() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz", responses=responses(503), summary="Ready")
@needs("open")
async def readyz(services: AppServices) -> Readiness:
    """The model is loaded, the storage answers, its checkpoint is the served one, and all threads run."""
    if not (services.engine.alive and services.worker.alive and services.preselection.alive):
        raise Overloaded("A background thread has ended. Restart the service; its log has the reason.", retry_after=5)
    if services.checkpoints.behind is not None:
        raise Overloaded(services.checkpoints.behind, retry_after=5)
    await to_thread.run_sync(services.storage.check)
    return Readiness()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}, summary="Metrics")
@needs("read")
def metrics(services: AppServices, access: RequestAccess) -> Response:
    """Prometheus' text format; for keys that are for all collections."""
    if access.collections is not None:
        raise Forbidden("The metrics are about all collections. Use a key that is for all.")
    return Response(services.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _stopping(config: CheckpointConfig) -> StoppingOut | None:
    calibration = config.stopping.calibration if config.stopping else None
    if calibration is None:
        return None
    return StoppingOut(
        rules=list(calibration.curves),
        default_rule=calibration.default_rule,
        step_cost=calibration.step_cost,
        budget=calibration.budget,
    )


@router.get("/model", summary="The checkpoint and its limits")
@needs("read")
def model(services: AppServices) -> ModelOut:
    """Which checkpoint is loaded, where, and what it can take."""
    current = services.checkpoints.current
    encoder, config = current.encoder, current.encoder.config
    return ModelOut(
        checkpoint=current.name,
        name=config.name,
        fingerprint=config.fingerprint,
        base_model=config.base_model,
        dimension=config.dimension,
        device=str(encoder.device),
        storage="directory" if services.settings.engines is None else "engines",
        positions=config.positions.model_dump(),
        stopping=_stopping(config),
        max_question_tokens=encoder.question_limit,
        max_chunk_tokens=encoder.chunk_limit,
        max_state_tokens=config.state_tokens,
        max_steps=MAX_STEPS,
        max_beam_width=MAX_BEAM_WIDTH,
        max_body_bytes=services.settings.max_body_bytes,
        feedback=services.settings.feedback,
        keep_questions_days=services.settings.keep_questions_days,
        training=config.training,
    )
