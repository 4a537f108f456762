"""Notes, in the store, that receivers are to be told: of what people are asked, and of ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from agent_statestore.errors import StoreError, StoreUnavailable
from agent_statestore.plain_text import line_logger
from agent_statestore.records import AgentContext, ExecutionSummary, Wait, WaitKind
from agent_statestore.store import Store
from celery_agents.settings import WebhookEvent, WebhookSettings
from celery_agents.webhooks.deliveries import AskedWait, Deliveries, Delivery

log = line_logger(__name__)

_DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Notes:
    """What a process notes for the receivers of its settings."""

    store: Store
    receivers: Sequence[WebhookSettings]

    def before_pause(self, context: AgentContext, asking: tuple[Wait, ...]) -> None:
        """Note that an execution is about to ask people, and when they are to be reminded. One round trip.

        Noted before the pause is written: nobody else would know of it if this process died in between. The deliverer
        tells of nothing that the store does not show to be asked. Raise `StoreUnavailable`, after which to repeat it.
        """
        noted = [
            delivery
            for receiver in self.receivers
            if receiver.hears_of(context.agent_id)
            for wait in asking
            for delivery in _of_wait(receiver, context, wait)
        ]
        self._note(noted, context.execution_id)

    def tell_outside(self, summary: ExecutionSummary, *, deleted: bool) -> None:
        """Note that an execution has ended, or will never end. Called until its end is settled."""
        if summary.due_at is None and not deleted:
            return  # it was settled: all were told
        at = summary.updated_at if summary.ended_at is None else summary.ended_at
        noted = [
            Delivery(
                event=WebhookEvent.ENDED,
                receiver=receiver.name,
                execution_id=summary.execution_id,
                agent_id=summary.agent_id,
                at=at,
                state=_DELETED if deleted else summary.state.value,
                due_at=at,
            )
            for receiver in self.receivers
            if receiver.hears(WebhookEvent.ENDED, summary.agent_id)
        ]
        self._note(noted, summary.execution_id)

    def _note(self, noted: list[Delivery], execution_id: str) -> None:
        if not noted:
            return
        try:
            Deliveries(self.store.documents).note(noted)
        except StoreUnavailable:
            raise
        except StoreError as error:
            # It would be refused for ever, and hold up the execution.
            log.error("execution %s: its webhooks were not noted: %s", execution_id, error)


def _of_wait(receiver: WebhookSettings, context: AgentContext, wait: Wait) -> list[Delivery]:
    """Return the delivery that tells of a question or an approval, and those that remind of it."""
    event = WebhookEvent.ASKED if wait.kind is WaitKind.INPUT else WebhookEvent.APPROVAL_REQUESTED
    told = [(event, 0, 0.0)] if event in receiver.events else []
    reminders = enumerate(receiver.remind_after_seconds, 1)
    told += [(WebhookEvent.REMINDER, number, seconds) for number, seconds in reminders]
    return [
        Delivery(
            event=event,
            receiver=receiver.name,
            execution_id=context.execution_id,
            agent_id=context.agent_id,
            at=wait.asked_at + timedelta(seconds=seconds),
            asked=AskedWait(kind=wait.kind.value, key=wait.key, round=wait.round),
            attempt=context.attempt,
            reminder=number,
            due_at=wait.asked_at + timedelta(seconds=seconds),
        )
        for event, number, seconds in told
    ]
