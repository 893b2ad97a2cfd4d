"""`python -m metaop` is the command `metaop`."""

import sys

from .cli import main

sys.exit(main())
