"""Parameter: a Var that a Module trains and saves."""

from __future__ import annotations

from typing import Any

import metaop as mo
from metaop import support


class Parameter(mo.Var):
    """A Var that becomes part of `parameters()` and the state dict when set on a Module.

    data: as in `mo.Var`, copied; a Var's history is left behind.  Operations on a Parameter return
    plain Vars.  Unlike a Var it requires a gradient unless told otherwise.

    Source: as torch.nn.Parameter.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True, dtype: Any = None):
        super().__init__(data, dtype=dtype, requires_grad=requires_grad)
        self._node.shape = support.plain(
            self.shape
        )  # another size of a parameter is another program
