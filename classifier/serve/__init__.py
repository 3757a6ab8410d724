"""The gRPC service: edge, converters, micro-batcher and the server's life."""
