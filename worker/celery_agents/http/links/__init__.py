"""One-time links: making them, and the page behind each.

    from celery_agents.http.links import LinksWSGI, answer_link, approval_links

    mail(answer_link(execution, sender="ada@example.com"))
    application = LinksWSGI()  # or LinksASGI(), mounted where `agents_link_url` says

A GET changes nothing, because programs follow the links in a mail: it shows a form. The form's POST answers, once.
"""

from celery_agents.http.links.page import (
    ApprovalLinks,
    LinkPages,
    LinksASGI,
    LinksWSGI,
    answer_link,
    approval_links,
)

__all__ = ["ApprovalLinks", "LinkPages", "LinksASGI", "LinksWSGI", "answer_link", "approval_links"]
