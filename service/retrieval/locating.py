"""Which chunks a request may select by where they stand in their files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from index.arrays import BoolArray
from index.storage.protocols import Catalogue
from index.storage.vectors import SearchScope
from qrag.wire.filters import LocationFilter


def located(scope: SearchScope, catalogue: Catalogue, location: LocationFilter) -> SearchScope:
    """The scope, on which no chunk may be selected that stands elsewhere; positions count all of them as before."""
    offsets = scope.scope.offsets
    allowed = np.zeros(scope.scope.size, dtype=np.bool_)
    for number, uid in enumerate(scope.uids.tolist()):
        matching = _matching(catalogue, uid, location)
        first, last = int(offsets[number]), int(offsets[number + 1])
        if len(matching) == last - first:  # not deleted meanwhile
            allowed[first:last] = matching
    return replace(scope, scope=scope.scope.masked(np.flatnonzero(~allowed)))


def _matching(catalogue: Catalogue, uid: int, location: LocationFilter) -> BoolArray:
    """Whether each chunk of a document matches, shape ``[chunks]``."""
    starts, places = catalogue.starts(uid), catalogue.places(uid)
    # What stands before the first place is at none.
    matches = np.array([location.matches({}), *(location.matches(place.location) for place in places)], dtype=np.bool_)
    return matches[np.searchsorted([place.start for place in places], starts, side="right")]
