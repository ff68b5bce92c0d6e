"""The shared core: token trees, scoring, objectives, training, generation, runs and reports.

Importing it costs nothing and loads no third-party package; import the module you need.
"""

import logging

# bitsandbytes remarks on an optional kernel package whenever PEFT is imported.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
