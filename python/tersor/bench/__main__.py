"""`python -m tersor.bench`."""

import sys

from tersor.bench.command import main

sys.exit(main())
