"""Imports TensorFlow without its start-up log, which no setting turns off.

The log goes past Python straight to file descriptor 2, so that is where it is caught; if the import
fails, everything is shown.
"""

import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

with tempfile.TemporaryFile() as log:
    stderr = os.dup(2)
    os.dup2(log.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    except BaseException:
        log.seek(0)
        os.write(stderr, log.read())
        raise
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
