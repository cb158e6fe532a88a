"""python -m ppo_lab."""

import signal
import sys

from ppo_lab.cli.main import main

if __name__ == "__main__":
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):  # all is done: nothing is left to stop
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
