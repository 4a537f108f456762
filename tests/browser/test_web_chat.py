"""examples/web_chat in a real browser: what a person sees while answers stream, workers die, and people decide.

With `WEB_CHAT_PICTURES=docs/images` in the environment it also makes the pictures of docs/web-chat.md.
"""

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from celery_agents.testing.llm import ModelServer
from examples.web_chat.model import SCRIPTED, URL
from examples.web_chat.script import script
from tests.browser.chromium import Chromium, Page
from tests.services.commands import ROOT, Command, environment

pytestmark = pytest.mark.crash

WISH = "A quiet stay by the sea near Lisbon, please."
# Seconds for each word of the model: so that pieces are seen, so that nothing ends before the test wants it, and none.
SEEN, HELD, FAST = 0.05, 0.5, 0.005
PICTURES = os.environ.get("WEB_CHAT_PICTURES")

LAST = "[...document.querySelectorAll('.turn')].at(-1)"
TEXTS = f"[...{LAST}.querySelectorAll('.bubble.text')].map(e => e.textContent)"
RECORDED = f"[...{LAST}.querySelectorAll('.bubble.text')].every(e => e.dataset.recorded === 'true')"


class Demo(Command):
    """The demo as `make demo-web` starts it."""

    def __init__(self, folder: Path, model: ModelServer) -> None:
        self.home = folder / "home"
        self.model = model
        super().__init__(
            [sys.executable, "-m", "examples.web_chat", "--home", str(self.home), "--port", "0"],
            cwd=ROOT,
            env=environment(**{URL: model.openai_url}),
            log=folder / "log",
        )
        self.wait_for("Ctrl-C ends it")
        self.url = next(word for word in self.output.split() if word.startswith("http://"))

    @property
    def workers(self) -> list[psutil.Process]:
        """The Celery workers that run."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            try:
                if "celery_agents" in child.cmdline() and "worker" in child.cmdline():
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def kill_worker(self) -> None:
        """kill -9: the worker and all of its pool."""
        (worker,) = self.workers
        os.killpg(worker.pid, signal.SIGKILL)

    def bookings(self) -> list[tuple[str, int, int, int]]:
        """What was booked."""
        with sqlite3.connect(self.home / "bookings.db") as db:
            return db.execute("SELECT stay, nights, guests, breakfast FROM bookings").fetchall()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with ModelServer({SCRIPTED: script}, pace_seconds=SEEN) as model, Demo(tmp_path, model) as demo:
        yield demo
        demo.send(signal.SIGTERM)
        assert demo.wait() == 0, demo.output


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path / "profile") as browser:
        yield browser


def picture(page: Page, name: str) -> None:
    if PICTURES:
        time.sleep(0.3)  # what moves has come to rest
        page.picture(ROOT / PICTURES / f"web-chat-{name}.png")


def send(page: Page, text: str) -> None:
    page.write("#message", text)
    page.click("#send")


def recorded_texts(page: Page) -> list[str]:
    """What the store has of the texts of the last execution's models."""
    found: list[str] = page.evaluate(
        f"fetch(`api/executions/${{{LAST}.dataset.id}}/steps`).then(r => r.json()).then(page => page.items"
        ".map(step => step.result?.output).filter(output => output?.role === 'assistant' && output.content)"
        ".map(output => output.content))"
    )
    return found


def count(page: Page) -> int:
    value: int = page.evaluate(f"{TEXTS}.join('').length")
    return value


def test_the_story(demo: Demo, browser: Chromium) -> None:
    page = browser.page()
    page.open(demo.url)
    page.wait_for("document.querySelector('#sessions .nothing')")

    # It streams: the text is there in parts before it is there.
    send(page, WISH)
    page.wait_for(f"{LAST} && {TEXTS}.join('').length > 20")
    lengths = {count(page)}
    page.wait_for(f"{TEXTS}.length === 2")
    while len(lengths) < 5:
        lengths.add(count(page))
    demo.model.pace_seconds = HELD
    assert not page.evaluate(RECORDED)
    picture(page, "streaming")

    # A reload in the middle of it: the text goes on from where it was.
    before = count(page)
    page.reload()
    page.wait_for(f"{LAST} && {TEXTS}.length === 2")
    assert count(page) >= before
    page.wait_for(f"{TEXTS}.join('').length > {before + 5}")
    cursors = [int(url.partition("after=")[2]) for url in browser.requests if "/events?" in url]
    assert cursors[0] == 0
    assert cursors[-1] > 0
    assert not page.evaluate(RECORDED)

    # kill -9 in the middle of it: what was said in vain goes away, and the page recovers by itself.
    demo.kill_worker()
    demo.model.pace_seconds = SEEN / 2
    page.wait_for(f"{LAST}.dataset.discarded === '1'", 30)
    page.wait_for(f"{TEXTS}.length === 2")
    picture(page, "recovered")
    demo.model.pace_seconds = FAST

    # The call waits to be approved; a person changes it.
    page.wait_for("document.querySelector('#approval[open]')", 30)
    assert page.evaluate(RECORDED)
    assert page.evaluate(TEXTS) == recorded_texts(page)
    page.wait_for("document.querySelector('#inbox-count').textContent === '1'")
    page.write("#approval[open] [name=nights]", "4")
    page.click("#approval[open] [name=breakfast]")
    picture(page, "approval")
    # Later: it waits in the inbox.
    page.click("#approval-later")
    page.wait_for("!document.querySelector('#approval[open]')")
    page.click("#new")
    page.wait_for("document.querySelector('.welcome')")
    page.click("#inbox button")
    page.write("#approval[open] [name=nights]", "4")
    page.click("#approval[open] [name=breakfast]")
    page.click("#approval-approve")
    page.wait_for(f"{LAST}.dataset.state === 'completed'", 30)
    assert demo.bookings() == [("Casa do Mar", 4, 2, 1)]
    assert "4 nights with breakfast" in page.evaluate(TEXTS)[-1]
    assert page.evaluate(TEXTS) == recorded_texts(page)
    page.wait_for("document.querySelector('#inbox .nothing')")
    session = page.evaluate("location.hash")
    execution = page.evaluate(f"{LAST}.dataset.id")

    # Another one looks: this conversation is not there for him.
    ben = browser.page(390, 780, dark=True)
    ben.open(demo.url)
    ben.wait_for("document.querySelector('#user').value === 'ada'")
    ben.choose("#user", "ben")
    ben.wait_for("fetch('me').then(r => r.json()).then(me => me.user === 'ben')")
    for path in ("", "/events", "/steps", "/contents"):
        assert ben.evaluate(f"fetch('api/executions/{execution}{path}').then(r => r.status)") == 404
    assert ben.evaluate("fetch('api/executions').then(r => r.json()).then(page => page.items)") == []
    ben.open(f"{demo.url}{session}")
    ben.reload()
    ben.wait_for("document.querySelector('.welcome')")

    # On a phone: a question; what is said while it works; a cancel.
    assert len(demo.model.repeated()) == 1, "more was asked again than what was in flight"
    send(ben, "I need a holiday.")
    ben.wait_for("document.querySelector('.card[data-open=true] button')", 30)
    ben.click(".card button:first-child")
    ben.wait_for(f"{TEXTS}.length === 2", 30)
    demo.model.pace_seconds = HELD
    ben.wait_for(f"{TEXTS}.length === 3", 30)
    send(ben, "Something cheaper, with breakfast.")
    ben.wait_for(f"{LAST}.querySelector('.said')")
    demo.model.pace_seconds = FAST
    ben.wait_for("document.querySelector('#approval[open]')", 30)
    assert "Pensão Aurora" in ben.evaluate(TEXTS)[-1].splitlines()[-1]
    assert ben.evaluate("document.querySelector('#approval [name=breakfast]').checked")
    ben.click("#approval-later")
    ben.wait_for("!document.querySelector('#approval[open]')")
    ben.evaluate("document.querySelector('.said').scrollIntoView()")
    picture(ben, "phone")
    ben.click("#cancel")
    ben.wait_for(f"{LAST}.dataset.state === 'cancelled'", 30)
    assert len(demo.bookings()) == 1
    # The refusals that were asked for apart.
    assert [complaint for complaint in browser.complaints if execution not in complaint] == []
