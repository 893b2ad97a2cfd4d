"""Networks ready to train."""

from .lenet import LeNetBN

__all__ = ["LeNetBN"]
