"""Optimisers: rules that turn parameters and their gradients into new parameters."""

from typing import TYPE_CHECKING

from ..hints import refuse
from . import lr_scheduler, swa_utils
from .adam import Adam, AdamW, NAdam, RAdam
from .adaptive import ASGD, Adadelta, Adagrad, Adamax, Lion, RMSprop, Rprop
from .lbfgs import LBFGS
from .optimizer import Optimizer
from .sgd import SGD

__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "NAdam",
    "Optimizer", "RAdam", "RMSprop", "Rprop", "lr_scheduler", "swa_utils",
]  # fmt: skip


if not TYPE_CHECKING:
    __getattr__ = refuse(__name__, lambda: list(globals()))
