import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_server import Commands

# Two logical CPUs stand for two replicas; this must come before TensorFlow starts.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

# Of what tracing makes, millions of objects stay, which would be walked through again for every few hundred more.
gc.freeze()
gc.set_threshold(100_000, 50, 100)


@pytest.fixture(autouse=True)
def default_precision():
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def float64():
    """Sign steps amplify rounding, so equalities are tested in double precision."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """Starts commands in processes of their own, without importing TensorFlow each time."""
    return Commands(tmp_path_factory.mktemp("commands"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pytest_collection_modifyitems(items):
    gpu, cifar10 = bool(tf.config.list_physical_devices("GPU")), _cifar10_is_prepared()
    for item in items:
        if "gpu" in item.keywords and not gpu:
            item.add_marker(pytest.mark.skip(reason="no GPU"))
        if "cifar10" in item.keywords and not cifar10:
            item.add_marker(pytest.mark.skip(reason="TFDS_DATA_DIR holds no CIFAR-10"))


def pytest_runtest_logreport(report):
    """Says at once what failed: the end, which says it in full, may be beyond a time limit."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED {report.nodeid}: {report.longreprtext.splitlines()[-1]}", flush=True)


def _cifar10_is_prepared():
    folder = os.environ.get("TFDS_DATA_DIR", os.path.expanduser("~/tensorflow_datasets"))
    return os.path.isdir(os.path.join(folder, "cifar10"))
