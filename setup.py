"""Packaging of awp_tf."""

import pathlib
import re

import setuptools

SERVING = ["tensorflow-serving-api>=2.21,<2.22"]  # warm-up requests of an export, and the client
ONNX = ["tf2onnx>=1.17,<2", "onnxruntime>=1.20,<2"]

here = pathlib.Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "awp_tf" / "__init__.py").read_text(encoding="utf-8"))

setuptools.setup(
    name="awp_tf",
    version=version.group(1) if version else "0",
    description="Adversarially robust image classifiers in TensorFlow, with adversarial weight perturbation",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    # Commands and recipes stand at the top of a checkout; installed, they are part of the package.
    packages=[*setuptools.find_packages(include=["awp_tf", "awp_tf.*"]), "awp_tf.pipelines", "awp_tf.gin"],
    package_dir={"awp_tf.pipelines": "pipelines", "awp_tf.gin": "gin"},
    package_data={"awp_tf": ["py.typed"], "awp_tf.gin": ["*.gin", "*/*.gin"]},
    entry_points={
        "console_scripts": [
            f"awp-{command} = awp_tf.pipelines.{command}:main"
            for command in ("train", "evaluate", "landscape", "export", "study", "continual")
        ]
    },
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "tensorflow-datasets>=4.9.10,<5",
        "importlib_resources",  # tensorflow-datasets 4.9.10 needs it to download, and does not say so
        "tensorboard>=2.21,<2.22",  # TensorFlow no longer brings it
        "absl-py>=2.1,<3",
        "filelock>=4,<5",  # a folder has one user at a time
        "gin-config>=0.5,<0.6",
        "numpy>=2.2,<3",
        "scikit-learn>=1.5,<2",
        "matplotlib>=3.9,<4",
        "pillow>=10,<14",  # BMP files with palettes
        "tqdm>=4.66,<5",
    ],
    extras_require={
        "and-cuda": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "array-record": ["array_record>=0.5"],  # on Linux tensorflow-datasets brings it
        "serving": SERVING,
        "onnx": ONNX,
        "torch": ["torch>=2.4"],
        "dev": ["pytest>=8,<10", "pytest-xdist>=3.6,<4", "ruff>=0.15,<0.18", "mypy>=1.15,<3", *SERVING, *ONNX],
    },
)
