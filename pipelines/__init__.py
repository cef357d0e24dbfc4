"""Commands: python -m pipelines.<name>.

TensorFlow and Keras are imported here as this project needs them, without the start-up log, which no setting turns off.
That goes past Python straight to file descriptor 2, so that is where it is caught; if the import
fails, everything is shown.
"""

import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Whatever a person's environment says for other projects: this one is made of TensorFlow and Keras 3.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_USE_LEGACY_KERAS"] = "0"

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

import keras

keras.config.set_image_data_format("channels_last")  # keras.json may say otherwise
