"""A shop on FastAPI: its users have tokens, and its own endpoint starts refunds."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException

from celery_agents.host.runtime import Runtime
from celery_agents.http import ExecutionsASGI, openapi_document
from celery_agents.lifecycle.create import create

TOKENS = {"Bearer ada's": "ada", "Bearer eve's": "eve"}


async def of_scope(scope: Any) -> str | None:
    """The user of a request to the mounted handlers."""
    return TOKENS.get(dict(scope["headers"]).get(b"authorization", b"").decode())


def user(authorization: Annotated[str, Header()] = "") -> str:
    """The user of a request to the shop's own endpoints."""
    if authorization not in TOKENS:
        raise HTTPException(401)
    return TOKENS[authorization]


def shop(runtime: Runtime, **options: Any) -> FastAPI:
    app = FastAPI()
    app.mount("/api/agents", ExecutionsASGI(of_scope, runtime=runtime, **options))

    @app.post("/orders/{order}/refund", status_code=202)
    def refund(order: str, name: Annotated[str, Depends(user)]) -> dict[str, str]:
        return {"id": create(runtime, "refunding", order, user_id=name)}

    @app.get("/agents-openapi.json")
    def document() -> dict[str, Any]:
        return openapi_document("/api/agents")

    return app
