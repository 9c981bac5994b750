"""For operators: which checkpoint is served, and changing it while requests go on."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Response

from qrag.wire.operations import CanaryOut, CheckpointChangeOut, CheckpointIn, CheckpointsOut
from service.engine.changes import Change
from service.engine.checkpoints import Checkpoints
from service.http.dependencies import AppServices, RequestAccess, known_query
from service.http.problems import responses
from service.http.rights import needs

router = APIRouter(prefix="/admin/checkpoints", tags=["operations"], dependencies=[Depends(known_query)])


@router.get("", summary="Which checkpoint is served")
@needs("admin")
def checkpoints(services: AppServices) -> CheckpointsOut:
    """What is served, what could be, and how far a change is."""
    return _out(services.checkpoints)


@router.post(
    "",
    status_code=202,
    responses={200: {"model": CheckpointsOut, "description": "It is served."}, **responses(400, 404, 413, 415, 422)},
    summary="Serve another checkpoint",
)
@needs("admin")
async def change_checkpoint(
    body: CheckpointIn, services: AppServices, access: RequestAccess, response: Response
) -> CheckpointsOut:
    """Load it, embed all chunks again if its action tower is another one, then serve it; requests go on meanwhile.

    With a `gate` it is served only if it finds as much for the questions as the one that is served; with a `canary` it
    answers a share of requests unseen, until it is asked for without one. `200` if it is served already when this
    returns; `202` where that is still to come. A gate takes the right `read` as well.
    """
    if body.gate is not None:
        access.require_right("read")
    await to_thread.run_sync(services.checkpoints.begin, body.checkpoint, body.gate, body.canary)
    out = await to_thread.run_sync(_out, services.checkpoints)
    if out.change is None:
        response.status_code = 200
    return out


@router.delete(
    "/{checkpoint}", status_code=204, responses=responses(404, 409, 422), summary="Forget another checkpoint's vectors"
)
@needs("admin")
def forget_checkpoint(checkpoint: Annotated[str, Path(max_length=255)], services: AppServices) -> None:
    """Give up a change to it, or drop the vectors that are kept for going back to it. Its folder stays."""
    services.checkpoints.forget(checkpoint)


def _out(state: Checkpoints) -> CheckpointsOut:
    change = state.change
    return CheckpointsOut(
        served=state.current.name,
        available=state.names(),
        change=None if change is None else _change(change, state.progress()),
        gate=state.last_gate,
        vector_sets=state.vector_sets,
    )


def _change(change: Change, progress: float | None) -> CheckpointChangeOut:
    canary = change.canary
    return CheckpointChangeOut(
        checkpoint=change.name,
        state=change.state,
        progress=progress,
        error=change.error,
        canary=canary
        and CanaryOut(
            share=canary.share,
            compared=canary.compared,
            dropped=canary.dropped,
            failed=canary.failed,
            overlap=canary.overlap,
        ),
    )
