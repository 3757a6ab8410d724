"""From published weights to the ONNX graphs that are served; used at set-up, never by a running server."""
