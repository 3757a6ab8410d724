"""Opens a graph in ONNX Runtime, and keeps no second copy of it."""

import onnxruntime as ort

# The package's environment variable comes too late in a process that imported ONNX Runtime before it.
ort.disable_telemetry_events()


def open_session(model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session on the processor.

    Args:
        model: The serialised graph.
        options: The session's options.

    Returns:
        The session.
    """
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime holds the file's bytes for a change of providers, which never comes.
    session._model_bytes = None  # noqa: SLF001
    return session
