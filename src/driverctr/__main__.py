"""`python -m driverctr` is the same program as `driverctr`."""

import sys

from driverctr.cli import main

sys.exit(main())
