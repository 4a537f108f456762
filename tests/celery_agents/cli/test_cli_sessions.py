"""`agents session` and `erase`: what outlives executions. And `copy`, which takes it along."""

import json
from pathlib import Path

import pytest

from agent_statestore import Store, open_store
from agent_statestore.recall import Facts, Scope, ScopeKind
from celery_agents import Run, agent
from tests.celery_agents.cli.cli_driving import CLI, refused


@pytest.fixture
def cli(cli: CLI) -> CLI:
    """The commands of an app with one more agent."""

    @agent(registry=cli.runtime.registry)
    def chat(run: Run, text: str) -> int:
        run.session.say("user", text)
        run.remember(f"said {text}", scope="user")
        return len(run.session.messages)

    return cli


def chat(cli: CLI, *texts: str, session: str = "s", user: str = "ada", execute: bool = True) -> list[str]:
    """Have executions say these texts; return their ids."""
    ids = []
    for text in texts:
        ids.append(cli.enqueue("chat", json.dumps(text), "--session", session, "--user", user))
        if execute:
            cli.execute(ids[-1])
    return ids


def said(store: Store, session: str) -> list[object]:
    return [message.content for message in store.session(session).messages()]


def remembered(store: Store, user: str) -> list[str]:
    return sorted(fact.text for fact in Facts(store.documents, Scope(ScopeKind.USER, user)).all())


def test_a_conversation_is_shown(cli: CLI) -> None:
    (first, _) = chat(cli, "hello", "a\nb\x1b[31m")
    assert cli("session", "show", "s").stdout == "    1  user: hello\n    2  user: a b\\x1b[31m\n"
    assert cli("session", "show", "s", "--last", "1").stdout.startswith("    2  user: a")
    rows = [json.loads(line) for line in cli("session", "show", "s", "--json").stdout.splitlines()]
    assert [(row["number"], row["content"]) for row in rows] == [(1, "hello"), (2, "a\nb\x1b[31m")]
    assert rows[0]["execution_id"] == first
    cli.store.session("s").summarise("greetings", up_to=1)
    assert cli("session", "show", "s").stdout.startswith("Up to 1, in short: greetings\n")
    nothing = cli("session", "show", "t")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "No messages in the session t" in nothing.stderr


def test_a_conversation_is_rewound_and_forked(cli: CLI) -> None:
    chat(cli, "a", "b", "c")
    assert cli("session", "fork", "s", "t").stdout == "The session t begins with 3 messages.\n"
    assert cli("session", "rewind", "s", "1").stdout == "Removed 2 messages.\n"
    assert (said(cli.store, "s"), said(cli.store, "t")) == (["a"], ["a", "b", "c"])
    refused(cli("session", "fork", "s", "t"), "has messages of its own")
    chat(cli, "d")
    assert said(cli.store, "s") == ["a", "d"]


def test_all_of_a_user_is_erased_and_nothing_of_others(cli: CLI) -> None:
    own = chat(cli, "a", "b")
    shared = [*chat(cli, "c", session="shared"), *chat(cli, "d", session="shared", user="bob")]
    active = chat(cli, "e", session="later", execute=False)
    refused(cli("erase", "--user", "ada", "--yes"), active[0], "active: cancel it first")
    refused(cli("erase", "--user", "ada"), "add --yes", code=2)
    refused(cli("erase", "--yes"), "--user or --session", code=2)
    assert cli.store.get_summary(own[0]) is not None
    assert cli("cancel", active[0]).exit_code == 0
    result = cli("erase", "--user", "ada", "--yes")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Erased 4 executions and ")
    assert [item.execution_id for item in cli.store.find().items] == [shared[1]]
    assert all(cli.store.get_audit(each) == () for each in (*own, shared[0], *active))
    assert (said(cli.store, "s"), said(cli.store, "shared")) == ([], ["c", "d"])
    assert (remembered(cli.store, "ada"), remembered(cli.store, "bob")) == ([], ["said d"])


def test_all_of_a_session_is_erased(cli: CLI) -> None:
    chat(cli, "a", "b")
    chat(cli, "c", session="t")
    cli.store.documents.put(("thread", "s"), "checkpoint", 1)
    assert cli("erase", "--session", "s", "--yes").stdout.startswith("Erased 2 executions and ")
    assert (said(cli.store, "s"), said(cli.store, "t")) == ([], ["c"])
    assert cli.store.documents.get(("thread", "s"), "checkpoint") is None
    assert remembered(cli.store, "ada") == ["said a", "said b", "said c"], "the user's, who is another one's matter"


def test_documents_are_copied_with_executions(cli: CLI, tmp_path: Path) -> None:
    chat(cli, "a", "b")
    url = f"sqlite:///{tmp_path}/copy.db"
    result = cli("copy", "--to", url)
    assert result.exit_code == 0, result.output
    executions, documents = result.stdout.splitlines()
    assert executions == "2 executions: copied 2."
    with open_store(url) as target:
        count = int(documents.partition(" ")[0])
        assert documents == f"{count} documents: there now {count}."
        assert (said(target, "s"), remembered(target, "ada")) == (["a", "b"], ["said a", "said b"])
        target.documents.put(("session", "s"), "holder", "newer")
        assert "newer there 1" in cli("copy", "--to", url).stdout
        target.documents.remove_under(("session", "s"))
    lacking = cli("copy", "--to", url, "--verify-only")
    assert (lacking.exit_code, "does not have all" in lacking.stderr) == (1, True)
    assert cli("copy", "--to", url, "--state", "completed").stdout == "2 executions: there already 2.\n"
