"""Making one-time links, and the page behind each, over WSGI and ASGI."""

import asyncio
import json
from collections.abc import Iterable
from datetime import timedelta
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs

from agent_statestore.errors import (
    AlreadyAnswered,
    ExecutionNotFound,
    ExecutionOver,
    QuestionNotAsked,
    StoreError,
    StoreUnavailable,
)
from agent_statestore.plain_text import line_logger
from agent_statestore.records import JSONValue, Wait
from celery_agents.client.execution import Execution
from celery_agents.current import current_runtime
from celery_agents.errors import AgentsError, InvalidAnswer, NoApprovalAsked
from celery_agents.http.links.forms import AnswerForm
from celery_agents.http.links.html import HEADERS, page
from celery_agents.lifecycle import signals
from celery_agents.lifecycle.services import Services
from celery_agents.webhooks.links import DEFAULT_LIFE, InvalidLink, LinkAct, Links, OneTimeLink, use

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = line_logger(__name__)

_MOST_BODY_BYTES: Final = 256 * 1024
_DONE: Final = {
    LinkAct.ANSWER: "Your answer was taken.",
    LinkAct.APPROVE: "You have approved this.",
    LinkAct.REJECT: "You have rejected this.",
}
_FORM: Final = "application/x-www-form-urlencoded"


class _Missing(Enum):
    MISSING = 0


class ApprovalLinks(NamedTuple):
    """Two links, of which the first that is used decides."""

    approve: str
    reject: str


def answer_link(
    execution: Execution,
    *,
    sender: str,
    key: str | None = None,
    answer: JSONValue | _Missing = _Missing.MISSING,
    expires: timedelta = DEFAULT_LIFE,
    url: str | None = None,
    runtime: Services | None = None,
) -> str:
    """Return a link that answers the question that an execution waits for.

    With `answer` it gives this answer; otherwise its page has a form for one. `sender` is recorded as who answered:
    send the link to nobody else. `url` is where their pages are served; it defaults to `agents_link_url`.

    Raise `NoQuestionAsked`, `SeveralAsked`, `InvalidAnswer`, `LinkTooLong`, `ExecutionNotFound`, `ConfigurationError`.
    """
    services = runtime or current_runtime()
    summary = execution.summary()
    asked = signals.the_question(summary, key)
    if asked is None:
        raise signals.NoQuestionAsked(summary.execution_id, key or "", signals.what_it_does(summary))
    answers = [] if answer is _Missing.MISSING else [answer]
    for given in answers:
        signals.check_answer(services, summary, asked, given)
    links = Links(services.settings)
    return links.make(LinkAct.ANSWER, execution.id, asked, sender=sender, answers=answers, expires=expires, url=url)


def approval_links(
    execution: Execution,
    *,
    sender: str,
    key: str | None = None,
    digest: str | None = None,
    expires: timedelta = DEFAULT_LIFE,
    url: str | None = None,
    runtime: Services | None = None,
) -> ApprovalLinks:
    """Return links that approve and that reject the call that an execution waits to make; see `answer_link`.

    Raise `NoApprovalAsked`, `SeveralAsked`, `ExecutionNotFound`, `ConfigurationError`.
    """
    services = runtime or current_runtime()
    summary = execution.summary()
    asked = signals.the_approval(summary, key, digest)
    if asked is None:
        raise NoApprovalAsked(summary.execution_id, signals.what_it_does(summary))
    links = Links(services.settings)
    approve, reject = (
        links.make(act, execution.id, asked, sender=sender, expires=expires, url=url)
        for act in (LinkAct.APPROVE, LinkAct.REJECT)
    )
    return ApprovalLinks(approve, reject)


class LinkPages:
    """The pages of one-time links, whatever serves them.

    Nobody logs in: whoever has a link may use it. `runtime` defaults to the current app's runtime.
    """

    def __init__(self, runtime: Services | None = None) -> None:
        self._runtime = runtime

    def reply(self, method: str, token: str, content_type: str = "", body: bytes = b"") -> tuple[int, str]:
        """Return the status and the HTML that answer a request. Never raise."""
        try:
            return self._reply(method, token, content_type, body)
        except InvalidLink as error:
            return _gone("This link has expired.") if error.expired_at else _problem(404, "This link is not valid.")
        except (ExecutionNotFound, ExecutionOver):
            return _gone("This is over: nobody needs to answer it any more.")
        except AlreadyAnswered:
            return _problem(409, "This was answered already. The first answer counts.")
        except (QuestionNotAsked, NoApprovalAsked):
            return _gone("This is not asked any more.")
        except StoreUnavailable as error:
            log.error("a one-time link was not answered: %s", error)
            return _problem(503, "This cannot be answered right now. Please try again in a minute.")
        except (AgentsError, StoreError) as error:
            log.warning("a one-time link was refused: %s", error)
            return _problem(400, "This answer cannot be taken.")
        except Exception:
            log.exception("a one-time link was not answered")
            return _problem(500, "Something went wrong here.")

    def _reply(self, method: str, token: str, content_type: str, body: bytes) -> tuple[int, str]:
        if method not in ("GET", "HEAD", "POST"):
            return _problem(405, "This is not done here.")
        services = self._runtime or current_runtime()
        link = Links(services.settings).read(token)
        summary = Execution(link.execution_id, services).summary()
        asked = link.wait_in(summary)
        if method != "POST":
            if asked is None:
                return _problem(409, "This was answered already, or is not asked any more.")
            return 200, _shown(link, asked)
        if content_type.partition(";")[0].strip().lower() != _FORM:
            return _problem(415, "This is no form.")
        if len(body) > _MOST_BODY_BYTES:
            return _problem(413, "This is too long.")
        given = {name: values[-1] for name, values in parse_qs(body.decode(errors="replace")).items()}
        answer: JSONValue = None
        if link.act is LinkAct.ANSWER and not link.answers and asked is not None:
            try:
                answer = AnswerForm.of(asked.schema).read(given)
                signals.check_answer(services, summary, asked, answer)
            except InvalidAnswer as error:
                return 400, _shown(link, asked, error.problems)
        use(services, summary, link, answer, given.get("reason") or None)
        return 200, page("Thank you", [_DONE[link.act]])


def _token(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _shown(link: OneTimeLink, asked: Wait, problems: Iterable[str] = ()) -> str:
    """Return the page with the form."""
    if link.act is LinkAct.ANSWER:
        fields = None if link.answers else AnswerForm.of(asked.schema)
        lines: list[JSONValue] = [asked.prompt]
        title = "Please answer" if fields is not None else "Please confirm this answer"
        lines += [f"Answer: {json.dumps(answer, ensure_ascii=False)}" for answer in link.answers]
        button = "Answer"
    else:
        call, fields = signals.shown(asked), None
        title = f"Please confirm: {link.act.value} {call['tool']}"
        lines = [call["description"], call["arguments"]]
        button = "Approve" if link.act is LinkAct.APPROVE else "Reject"
    return page(title, lines, form=fields, button=button, sender=link.sender, problems=problems)


def _problem(status: int, said: str) -> tuple[int, str]:
    return status, page("Not answered", [said])


def _gone(said: str) -> tuple[int, str]:
    return _problem(410, said)


class LinksWSGI(LinkPages):
    """The pages as a WSGI application, served by itself or mounted below any prefix; see `LinkPages`."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        announced = environ.get("CONTENT_LENGTH") or "0"
        length = int(announced) if announced.isascii() and announced.isdecimal() and len(announced) < 10 else 0
        body = environ["wsgi.input"].read(min(length, _MOST_BODY_BYTES + 1)) if length else b""
        method = environ["REQUEST_METHOD"]
        path, kind = environ.get("PATH_INFO", ""), environ.get("CONTENT_TYPE") or ""
        status, html = self.reply(method, _token(path), kind, body)
        content = html.encode()
        start_response(f"{status} {HTTPStatus(status).phrase}", [*HEADERS, ("Content-Length", str(len(content)))])
        return [] if method == "HEAD" else [content]


class LinksASGI(LinkPages):
    """The pages as an ASGI application; the store is asked in threads. See `LinkPages`."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["type"] != "http":
            raise ValueError(f"unknown ASGI scope {scope['type']!r}")
        body, has_more = bytearray(), True
        while has_more and len(body) <= _MOST_BODY_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
        kinds = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"content-type"]
        kind = kinds[-1] if kinds else ""
        status, html = await asyncio.to_thread(self.reply, scope["method"], _token(scope["path"]), kind, bytes(body))
        content = html.encode()
        headers = [*HEADERS, ("Content-Length", str(len(content)))]
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})
