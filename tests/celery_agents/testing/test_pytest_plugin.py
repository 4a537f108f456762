"""The pytest plug-in in a Django project of its own, which is tested in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

PROJECT = {
    "shop/__init__.py": "",
    "shop/settings.py": """
        from pathlib import Path

        HERE = Path(__file__).parent
        SECRET_KEY = "x"
        INSTALLED_APPS = []
        USE_TZ = True
        DATABASES = {"default": {
            "ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "shop.db", "TEST": {"NAME": HERE / "tested.db"}
        }}
    """,
    "shop/views.py": """
        from celery import Celery
        from django.db import connection, transaction

        from celery_agents import agent, install
        from shop.settings import HERE

        app = install(Celery("shop", broker="redis://nowhere.invalid/0", set_as_current=False))
        app.conf.agents_store_url = f"sqlite:///{HERE}/shop.db"


        @agent
        def shipping(run, order: str) -> str:
            return run.step("ship", lambda: f"shipped {order}")


        def view(order, **options):
            return shipping.enqueue(order, user_id="ada", **options).id


        def careful_view(order):
            with transaction.atomic():
                inside = view(order, connection=connection)
                return inside, view(order, on_commit=transaction.on_commit)
    """,
    "test_shop.py": """
        from pathlib import Path

        import pytest
        from django.db import connection

        from agent_statestore.store import Store
        from celery_agents import get_execution
        from celery_agents.errors import ConfigurationError
        from celery_agents.host.runtime import runtime_of
        from shop import views


        def test_the_fixture_takes_what_a_view_enqueues(agents):
            started = views.view("A7")
            assert [one.id for one in agents.started("shipping")] == [started] == list(agents.bells)
            assert agents.started("other") == []
            (execution,) = agents.started(views.shipping)
            assert execution.context().user_id == "ada"
            assert execution.wait() == "shipped A7"
            assert agents.bells == ()
            assert get_execution(started).context().output == "shipped A7"


        def test_nothing_is_left_of_the_last_test(agents):
            assert agents.started() == []


        @pytest.mark.django_db
        def test_a_view_with_a_transaction(agents, django_capture_on_commit_callbacks):
            with django_capture_on_commit_callbacks(execute=True):
                inside, after = views.careful_view("A8")
            assert [one.id for one in agents.started()] == [inside, after] == list(agents.bells)
            agents.run()
            assert [one.wait() for one in agents.started()] == ["shipped A8"] * 2


        @pytest.mark.parametrize("with_database", [False, True])
        def test_without_the_fixture_the_real_store_is_refused(request, with_database):
            if with_database:
                request.getfixturevalue("db")
            for _ in range(2):
                with pytest.raises(ConfigurationError) as refused:
                    views.view("A9")
            said = str(refused.value)
            assert "shop.db" in said
            assert "`agents`" in said
            assert "tested.db" in said or not with_database
            assert not (views.HERE / "shop.db").exists()


        def test_a_store_that_was_opened_before_is_refused_too(request, agents):
            runtime = runtime_of(views.app)
            assert runtime.store.url == "memory://"
            type(runtime).stand_in = None
            runtime._store = agents.store
            with pytest.raises(ConfigurationError):
                runtime.store
            runtime._store = None


        @pytest.mark.django_db
        def test_the_tests_own_database_is_accepted():
            runtime = runtime_of(views.app)
            name = connection.settings_dict["NAME"]
            runtime._settings = runtime.settings.model_copy(update={"store_url": f"sqlite:///{name}"})
            assert isinstance(runtime.store, Store)
            runtime._settings = runtime._store = None


        def test_a_store_that_the_option_names_is_accepted():
            runtime = runtime_of(views.app)
            runtime._settings = runtime.settings.model_copy(update={"store_url": "redis://named.invalid/3"})
            assert isinstance(runtime.store, Store)
            runtime._settings = runtime._store = None
    """,
    "pytest.ini": """
        [pytest]
        DJANGO_SETTINGS_MODULE = shop.settings
        pythonpath = .
        agents_test_stores = redis://named.invalid/3
    """,
}


def test_a_django_project_is_tested_with_it(tmp_path: Path) -> None:
    for name, text in PROJECT.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(dedent(text))
    ended = _python(
        tmp_path, "-m", "pytest", "-q", "-x", "-p", "no:celery", "-p", "no:valkey", "-p", "no:cacheprovider"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"\b8 passed\b", ended.stdout), ended.stdout


def test_a_project_that_only_has_the_package_installed_pays_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(
        dedent("""
            import sys

            heavy = {"celery", "kombu", "sqlalchemy", "pydantic", "agent_statestore", "celery_agents.testing", "django"}


            def test_nothing(request):
                assert request.config.pluginmanager.hasplugin("celery_agents")
                assert heavy & sys.modules.keys() == set()
        """)
    )
    # Other plug-ins of this environment import Celery.
    blocked = [part for name in ("celery", "pytest_celery", "valkey", "django") for part in ("-p", f"no:{name}")]
    ended = _python(tmp_path, "-m", "pytest", "-q", *blocked, "-p", "no:cacheprovider")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _python(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTS_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=170, check=False
    )
