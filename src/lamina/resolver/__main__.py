"""``python -m lamina.resolver SOCKET``."""

import sys
from pathlib import Path

from lamina.resolver.server import main

main(Path(sys.argv[1]))
