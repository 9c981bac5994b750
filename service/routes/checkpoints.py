"""For operators: which checkpoint is served, and changing it while requests go on."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Response

from qrag.wire.operations import CheckpointChangeOut, CheckpointIn, CheckpointsOut
from service.engine.checkpoints import Checkpoints
from service.http.dependencies import AppServices, known_query
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
async def change_checkpoint(body: CheckpointIn, services: AppServices, response: Response) -> CheckpointsOut:
    """Load it, embed all chunks again if its action tower is another one, then serve it; requests go on meanwhile.

    `200` if it is served already when this returns; `202` while chunks are being embedded.
    """
    await to_thread.run_sync(services.checkpoints.begin, body.checkpoint)
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
    change, progress = state.change, state.progress()
    return CheckpointsOut(
        served=state.current.name,
        available=state.names(),
        change=change
        and CheckpointChangeOut(checkpoint=change.name, state=change.state, progress=progress, error=change.error),
        vector_sets=state.vector_sets,
    )
