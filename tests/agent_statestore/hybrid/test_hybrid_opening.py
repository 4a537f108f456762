"""`hybrid:` URLs."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from agent_statestore import ManualClock, MemoryStore, UnknownScheme, UnsupportedURL, open_store
from agent_statestore.drivers.masking import masked
from agent_statestore.hybrid import HybridStore
from agent_statestore.sql import SQLStore


def test_a_url_names_both_stores(tmp_path: Path, clock: ManualClock) -> None:
    cold = quote(f"sqlite:///{tmp_path}/cold.db?table_prefix=old_", safe="")
    url = f"hybrid:///?hot=memory%3A%2F%2F&cold={cold}&archive_after=90.5"
    with open_store(url, max_value_bytes=5000, clock=clock) as store:
        assert isinstance(store, HybridStore)
        assert isinstance(store.hot, MemoryStore)
        assert isinstance(store.cold, SQLStore)
        assert store.archive_after == timedelta(seconds=90.5)
        assert store.hot.max_value_bytes == store.cold.max_value_bytes == store.max_value_bytes == 5000
        created = store.create_context("agent")
        assert created.created_at.timestamp() * 1e6 == clock.now_us()
        store.check()


def test_it_archives_at_once_unless_told_otherwise() -> None:
    with open_store("hybrid:///?hot=memory://&cold=memory://") as store:
        assert isinstance(store, HybridStore)
        assert store.archive_after == timedelta(0)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("hybrid://", "'hot' is missing"),
        ("hybrid:///?hot=memory://", "'cold' is missing"),
        ("hybrid:///?hot=memory://&cold=", "'cold' is missing"),
        ("hybrid://host/?hot=memory://&cold=memory://", "percent-encoded"),
        ("hybrid:///?hot=redis://h?key_prefix=a:&completed_ttl=5&cold=memory://", "'completed_ttl' is unknown"),
        ("hybrid:///?hot=memory://&hot=memory://&cold=memory://", "'hot' is given twice"),
        ("hybrid:///?hot=memory://&cold=memory://&archive_after=7d", "'7d'"),
        ("hybrid:///?hot=memory://&cold=memory://&archive_after=nan", "'nan'"),
        ("hybrid:///?hot=memory://&cold=memory://&archive_after=-1", "negative"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, named: str) -> None:
    with pytest.raises(UnsupportedURL) as refused:
        open_store(url)
    assert named in str(refused.value)


def test_a_wrong_url_inside_is_refused() -> None:
    with pytest.raises(UnknownScheme, match="mongodb"):
        open_store("hybrid:///?hot=memory://&cold=mongodb://h")


@pytest.mark.parametrize("safe", ["", "/", "/:@?="])
def test_no_password_is_shown(safe: str) -> None:
    hot, cold = "redis://:hunter2@h:1/0?key_prefix=a:", "postgresql+psycopg://u:hunter3@h/d?sslpassword=hunter4"
    url = f"hybrid:///?hot={quote(hot, safe=safe)}&cold={quote(cold, safe=safe)}"
    assert "hunter" not in masked(url)
    with open_store(url) as store:
        assert "hunter" not in store.url + repr(store)
        assert store.url.startswith("hybrid of redis://:***@h:1/0")
        assert " over postgresql+psycopg://u:***@h/d" in store.url
    with pytest.raises(UnsupportedURL) as refused:
        open_store(f"{url}&archive_after=soon")
    assert "hunter" not in str(refused.value)
