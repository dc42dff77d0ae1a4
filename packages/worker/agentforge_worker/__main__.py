"""Entry of the worker zip: `venv/bin/python -s worker.pyz --fd N --kind agent|tools`, or `... worker.pyz code ...`."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["code"]:  # without all that only workers need
        from agentforge_worker.code.supervise import main

        sys.exit(main(sys.argv[2:]))
    from agentforge_worker.runtime.main import main

    sys.exit(main(sys.argv[1:]))
