"""The web application: who is signed in, the page, and the executions of celery-agents below `/api`."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.staticfiles import StaticFiles
from starlette.middleware.sessions import SessionMiddleware

import examples.web_chat.desk  # noqa: F401 - executions are started of the agents that are known here
from celery_agents.http import ExecutionsASGI

PAGE: Final = Path(__file__).parent / "page"
# A real application has passwords, or somebody who checks them. All else below it is the same.
USERS: Final = ("ada", "ben")


def build(kill_worker: Callable[[], int] | None = None) -> FastAPI:
    """Return the application. With `kill_worker`, the page has a button that kills the worker, and says its id."""
    app = FastAPI(title="Travel desk")
    # The cookie is signed; a browser sends it with requests of this page only.
    app.add_middleware(SessionMiddleware, secret_key=secrets.token_hex(), same_site="strict")

    @app.get("/me")
    def me(request: Request) -> dict[str, Any]:
        """Say who is signed in."""
        return {"user": request.session.get("user"), "users": USERS, "can_kill": kill_worker is not None}

    @app.post("/sign-in", status_code=204)
    def sign_in(request: Request, user: Annotated[str, Body(embed=True)]) -> None:
        """Sign in as one of the demo's users."""
        if user not in USERS:
            raise HTTPException(403, "nobody of this name is known here")
        request.session["user"] = user

    if kill_worker is not None:

        @app.post("/kill-worker")
        def kill(request: Request) -> dict[str, int]:
            """Kill the worker, as a machine's failure would."""
            if not request.session.get("user"):
                raise HTTPException(401, "sign in first")
            return {"pid": kill_worker()}

    # Everybody sees and decides about executions of their own: the rule that is there without any other.
    app.mount("/api", ExecutionsASGI(lambda scope: scope["session"].get("user")))
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app
