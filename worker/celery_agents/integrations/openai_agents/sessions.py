"""A session of the SDK whose calls are steps, so that a turn is kept once, however often the execution begins anew."""

from typing import Any

from agents.memory import Session, SessionSettings

from celery_agents.define.crash_policy import Happened
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.errors import RegistrationError
from celery_agents.integrations.openai_agents.conversation import RunConversation
from celery_agents.integrations.step_options import StepOptions
from celery_agents.integrations.steps import durable_run, take


class DurableSession:
    """A session with its calls as steps: what was read is read again from the record, what was written is not written.

    After a crash in the middle of a write, it is looked whether the session ends with what was to be written. That
    takes a session that keeps what one call gives it as a whole, as those in databases do in one transaction.
    """

    def __init__(self, session: Session) -> None:
        if hasattr(session, "run_compaction"):
            raise RegistrationError(
                type(session).__name__,
                "a session that compacts itself asks a model outside of steps, and replaces its items",
            )
        self._session = session
        self.session_id: str = session.session_id
        self.session_settings: SessionSettings | None = session.session_settings

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """See `Session`."""

        async def unit() -> Any:
            return await self._session.get_items(limit)

        items: list[Any] = await self._step("read", unit)
        return items

    async def add_items(self, items: list[Any]) -> None:
        """See `Session`."""

        async def unit() -> None:
            await self._session.add_items(items)

        async def happened() -> Happened | None:
            return Happened() if items and await self._session.get_items(len(items)) == items else None

        await self._step("write", unit, happened)

    async def pop_item(self) -> Any:
        """See `Session`. Whether an item was taken before a crash cannot be found out: the run then fails."""

        async def unit() -> Any:
            return await self._session.pop_item()

        return await self._step("pop", unit, "fail")

    async def clear_session(self) -> None:
        """See `Session`."""

        async def unit() -> None:
            await self._session.clear_session()

        await self._step("clear", unit)

    async def _step(self, what: str, unit: Any, on_crash: Any = None) -> Any:
        run: AsyncRun | None = durable_run()
        if run is None:
            return await unit()
        return await take(run, f"session {self.session_id} {what}", unit, StepOptions(on_crash=on_crash))


def durable_session(session: Session | None) -> Session | None:
    """Return the session with its calls as steps, if it needs them.

    Raise `RegistrationError` for one that cannot be so.
    """
    return (
        session if session is None or isinstance(session, DurableSession | RunConversation) else DurableSession(session)
    )
