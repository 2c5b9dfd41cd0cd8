"""``python -m routilux`` is the command ``routilux``."""

import sys

from routilux.cli import main

sys.exit(main())
