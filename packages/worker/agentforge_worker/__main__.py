"""Entry of the worker zip: `venv/bin/python -s worker.pyz --fd N --kind agent|tools`."""

import sys

from agentforge_worker.runtime.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
