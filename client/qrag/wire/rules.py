"""The names of stop rules, and of the ways an episode ends: for those who only talk about them.

Light to import, unlike what acts on them (:mod:`index.episodes.stopping`, :mod:`index.episodes.episode`): a client of the service needs
no torch.
"""

from __future__ import annotations

from typing import Literal, get_args

Rule = Literal["threshold", "action", "sufficiency"]
RULES: tuple[Rule, ...] = get_args(Rule)

StoppedBy = Literal["budget", "threshold", "action", "sufficiency", "sufficient", "hopeless", "context", "exhausted"]
"""Why an episode ended: the budget is spent; a rule's score fell below its threshold; the best chunk does not fit the
context; no chunk is left. Of the rule ``sufficiency`` it says ``sufficient`` or ``hopeless`` where that is what the
state most likely is."""
