"""``python -m trainer``: see :mod:`trainer.command_line.main`."""

import sys

from trainer.command_line.main import main

if __name__ == "__main__":
    sys.exit(main())
