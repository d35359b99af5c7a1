"""``python -m parts2whole``."""

import sys

from parts2whole.cli import main

sys.exit(main())
