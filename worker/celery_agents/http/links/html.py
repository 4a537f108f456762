"""The HTML of a link's page: without scripts, without anything from elsewhere, and all of it escaped."""

import base64
import hashlib
import json
from collections.abc import Iterable
from html import escape
from typing import Final

from agent_statestore.records import JSONValue
from celery_agents.http.links.forms import AnswerField, AnswerForm

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem;color:#222}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f4f4f4;padding:.8rem;border-radius:6px}"
    "textarea,input[type=number]{width:100%;box-sizing:border-box;font:inherit;padding:.5rem}"
    "button{font:inherit;padding:.5rem 1.5rem;margin-top:1rem}label{display:block;margin:.4rem 0}"
    ".problem{color:#a00}.small{color:#666;font-size:.9rem}"
)
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: Final = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Robots-Tag", "noindex, nofollow"),
)


def page(
    title: str,
    lines: Iterable[JSONValue],
    *,
    form: AnswerForm | None = None,
    button: str | None = None,
    sender: str = "",
    problems: Iterable[str] = (),
) -> str:
    """Return a page: what is said, and if it has a `button`, a form that posts to the page's own address."""
    body = [f"<h1>{escape(title)}</h1>", *(_shown(line) for line in lines if line not in (None, "", {}))]
    body += [f'<p class="problem">{escape(problem)}</p>' for problem in problems]
    if button is not None:
        field = "" if form is None else _field(form)
        body.append(
            f'<form method="post">{field}<label>Reason (if you want to give one)'
            '<textarea name="reason" rows="2" maxlength="1000"></textarea></label>'
            f'<button type="submit">{escape(button)}</button></form>'
            f'<p class="small">This counts once, and is recorded as the decision of {escape(sender)}.</p>'
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>"
    )


def _shown(value: JSONValue) -> str:
    if isinstance(value, str):
        return f"<p>{escape(value)}</p>"
    return f"<pre>{escape(json.dumps(value, ensure_ascii=False, indent=2))}</pre>"


def _field(form: AnswerForm) -> str:
    if form.field is AnswerField.NUMBER:
        return '<label>Answer<input type="number" step="any" name="answer" required></label>'
    if form.field is AnswerField.CHOICE:
        named = [(str(number), _name(choice)) for number, choice in enumerate(form.choices)]
        return "".join(
            f'<label><input type="radio" name="answer" value="{number}" required> {escape(name)}</label>'
            for number, name in named
        )
    what = "Answer" if form.field is AnswerField.TEXT else "Answer, as JSON"
    return f'<label>{what}<textarea name="answer" rows="5" required></textarea></label>'


def _name(choice: JSONValue) -> str:
    if isinstance(choice, bool):
        return "Yes" if choice else "No"
    return choice if isinstance(choice, str) else json.dumps(choice, ensure_ascii=False)
