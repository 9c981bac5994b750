"""The names of stop rules, and the ways an episode ends: the words that service, clients and command line share.

Light to import, unlike what applies the rules (:mod:`index.episodes`): a client of the service needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Rule = Literal["threshold", "action", "sufficiency"]
"""The name of a stop rule."""

RULES: tuple[Rule, ...] = get_args(Rule)
"""The names of all stop rules."""

StoppedBy = Literal["budget", "threshold", "action", "sufficiency", "sufficient", "hopeless", "context", "exhausted"]
"""Why an episode ended: the budget is spent; a rule's score fell below its threshold; the best chunk does not fit the
context; no chunk is left. The rule ``sufficiency`` ends with ``sufficient`` or ``hopeless`` where the state most likely
is one of the two."""

ENDINGS: Mapping[StoppedBy, str] = {
    "budget": "as many chunks as asked for are selected",
    "threshold": "another chunk would not be worth its cost",
    "action": "another chunk would not be worth its cost",
    "sufficiency": "another chunk would not be worth its cost",
    "sufficient": "the evidence is most likely complete",
    "hopeless": "the rest of the evidence is most likely not there",
    "context": "the next chunk does not fit into the context",
    "exhausted": "no chunk is left",
}
"""Each ending in words that follow "because"; an ending without an entry is printed by its name."""
