"""``python -m automc.export.proof FOLDER``: prove a folder, print what was measured as JSON."""

import sys

from automc.export.proof.proving import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
