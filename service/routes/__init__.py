"""The HTTP routes, a module for each kind of resource: requests are checked here, and answered by the rooms below.

``documents`` takes uploads in through :mod:`service.intake` and shows what the store holds; ``retrieval`` and
``vector_stores`` ask :mod:`service.retrieval`, ``answering`` has a language model write from what was found,
``feedback`` keeps which chunks helped, ``questions`` shows what people asked, and ``checkpoints``, ``operations``,
``page`` and ``reference`` are for operators and people. The models of bodies are in :mod:`qrag.wire`.

To add a route: an endpoint in one of these modules with ``@needs`` the right that it takes, its models in
:mod:`qrag.wire`, a section in ``docs/api.md``; a new module's router also goes into :data:`ROUTERS`.
"""

from service.routes import (
    answering,
    checkpoints,
    documents,
    feedback,
    operations,
    page,
    questions,
    reference,
    retrieval,
    vector_stores,
)

ROUTERS = (
    documents.router,
    retrieval.router,
    answering.router,
    feedback.router,
    questions.router,
    vector_stores.router,
    operations.router,
    checkpoints.router,
    page.router,
    reference.router,
)
"""Every router, in the order in which paths are matched and OpenAPI lists them."""
