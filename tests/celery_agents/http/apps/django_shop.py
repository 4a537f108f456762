"""A shop on Django: its users sign in with a session, ask for refunds, and have an inbox.

Run as a program it serves itself under WSGI and under ASGI, and prints both ports.
"""

import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any
from wsgiref.simple_server import make_server

import django
import uvicorn
from celery import Celery
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from celery_agents import Registry, Run, agent, install, tool
from celery_agents.host.runtime import Runtime, runtime_of
from tests.celery_agents.http.serving import Quiet, Threading

PASSWORD = "a good one"


def configure(folder: Path) -> None:
    settings.configure(
        SECRET_KEY="of a test",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        USE_TZ=True,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(folder / "shop.db"),
                # Each view in a transaction: the handlers must work in it.
                "ATOMIC_REQUESTS": True,
            }
        },
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.auth.middleware.LoginRequiredMiddleware",
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()


def installed(folder: Path) -> Runtime:
    """The shop's Celery app and agents; the test's own process has the same."""
    app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.agents_store_url = f"sqlite:///{folder}/executions.db"
    registry = Registry()

    @tool(registry=registry, requires_approval=True)
    def pay(to: str, amount: int) -> str:
        """Sends money."""
        return f"paid {amount} to {to}"

    @agent(registry=registry)
    def refunding(run: Run, order: str) -> str:
        run.emit({"order": order})
        return run.tool(pay, order, 30)

    install(app, registry=registry)
    return runtime_of(app)


def patterns(runtime: Runtime) -> list[Any]:
    from django.contrib.auth import authenticate, login
    from django.contrib.auth.decorators import login_not_required
    from django.urls import include, path
    from django.views.decorators.csrf import csrf_exempt

    from celery_agents.http.django import agents_urls

    @csrf_exempt
    @login_not_required
    def sign_in(request: HttpRequest) -> HttpResponse:
        user = authenticate(request, **json.loads(request.body))
        if user is None:
            return HttpResponse(status=401)
        login(request, user)
        return HttpResponse(status=204)

    def whoami(request: HttpRequest) -> HttpResponse:
        return JsonResponse({"name": request.user.get_username()})

    options: Any = {"runtime": runtime, "heartbeat_seconds": 0.2, "max_body_bytes": 300_000}
    return [path("login", sign_in), path("whoami", whoami), path("api/agents/", include(agents_urls(**options)))]


def serve(folder: Path) -> None:
    configure(folder)
    from django.contrib.auth.models import User
    from django.core.asgi import get_asgi_application
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application

    globals()["urlpatterns"] = patterns(installed(folder))
    sys.modules.setdefault("tests.celery_agents.http.apps.django_shop", sys.modules[__name__])
    call_command("migrate", verbosity=0)
    for name in ("ada", "eve"):
        User.objects.create_user(name, password=PASSWORD)
    wsgi = make_server("127.0.0.1", 0, get_wsgi_application(), server_class=Threading, handler_class=Quiet)
    threading.Thread(target=wsgi.serve_forever, daemon=True).start()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    print(wsgi.server_port, listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(get_asgi_application(), log_level="error", lifespan="off")).run([listening])


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
