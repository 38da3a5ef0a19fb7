"""`python -m pyramidvit` is `pvt`."""

import sys

from .cli import main

sys.exit(main())
