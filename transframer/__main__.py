"""`python -m transframer` is the same as `transframer`."""

import sys

from transframer.cli import main

sys.exit(main())
