"""``python -m automc.cli``."""

import sys

from automc.cli import main

sys.exit(main())
