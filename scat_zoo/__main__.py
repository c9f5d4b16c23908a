"""`python -m scat_zoo`, the same as the command `scat-zoo`."""
import sys

from .cli import main

sys.exit(main())
