"""The plain reference as a gRPC service: each request is encoded, searched and classified by itself (torch).

Started by benchmarks/served.py in the environment of `make parity`; says where it serves on stderr, until SIGTERM.
"""

import asyncio
import os
import sys
from typing import Any

import grpc
from reference import Reference
from stillwatch.v1 import classifier_pb2, verdict_pb2

from classifier.corpus import load_corpus


async def main() -> None:
    """Serve Classify as the libraries' tutorials put it together."""
    reference = Reference(load_corpus(), len(os.sched_getaffinity(0)))

    async def classify(request: classifier_pb2.ClassifyRequest, _: object) -> classifier_pb2.ClassifyResponse:
        found = await asyncio.to_thread(reference.score, [request.prompt.text])
        verdict = verdict_pb2.Verdict(
            extraction_probability=float(found[0][0, 1]),
            capabilities=[verdict_pb2.LabelScore(probability=float(label[0, 1])) for label in found[1:]],
        )
        return classifier_pb2.ClassifyResponse(verdict=verdict)

    handler: Any = grpc.unary_unary_rpc_method_handler(
        classify, classifier_pb2.ClassifyRequest.FromString, classifier_pb2.ClassifyResponse.SerializeToString
    )
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler("stillwatch.v1.ClassifierService", {"Classify": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stderr.write(f"the reference is serving on 127.0.0.1:{port}\n")
    sys.stderr.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
