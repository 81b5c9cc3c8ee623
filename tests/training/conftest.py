import sys
from pathlib import Path

# The toy model is also run as a script, by several processes at once; it is one module for both.
sys.path.insert(0, str(Path(__file__).parent))
