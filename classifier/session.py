"""Opens a graph in ONNX Runtime, and keeps no second copy of it."""

import onnxruntime as ort


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
