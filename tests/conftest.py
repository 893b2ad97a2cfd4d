"""Every test runs with the IR verified after each pass."""

import metaop as mo

mo.config.check = True
