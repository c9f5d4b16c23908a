"""`python -m scat_zoo`, the same as the command `scat-zoo`."""
import sys

from scat_zoo_cli import main

sys.exit(main())
