"""Stillwatch: tells prompts that harvest a model's answers as training data from ordinary ones."""

import os

__version__ = "0.1.0"

# Official builds of ONNX Runtime since 1.29 name the machine and its models to their maker over HTTPS unless they are told
# not to before they are imported. Nothing that watches other people's prompts may speak to anybody unasked.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
