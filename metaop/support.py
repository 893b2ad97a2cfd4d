"""What a library of modules and optimisers builds on, beside the functions of Vars.

Modules tell a trace of `mo.jit` what they hold, by being `Watched`; optimisers keep their numbers
in `Cells` and `Counters`, so that a replay reads the learning rate of its time.  Functions that are
`remembered` run for operands of new kinds only.  `index_maximum` and `index_minimum` are of
indices, in the function of a `reindex`.
"""

from .errors import Site, describe, is_own, user_site
from .extent import plain
from .hints import hint_for
from .index import maximum as index_maximum
from .index import minimum as index_minimum
from .life import in_transaction
from .operations import flops_by_span, moment
from .recipes import remembered
from .recording import recording
from .repeated import Attempt, may_be_repeated
from .traced import Cells, Counters, Watched, changes
from .tracing import outside

__all__ = [
    "Attempt", "Cells", "Counters", "Site", "Watched", "changes", "describe", "flops_by_span",
    "hint_for", "in_transaction", "index_maximum", "index_minimum", "is_own", "may_be_repeated",
    "moment", "outside", "plain", "recording", "remembered", "user_site",
]  # fmt: skip
