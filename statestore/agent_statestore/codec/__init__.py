"""Conversion of records to stored text and back: the one place that knows the fields of every envelope.

A backend stores what `encode_new` and `encode_checkpoint` return, and gives `decode_context` back what it stored. It
never looks into the texts. The header of an execution is a flat mapping whose names are the same in every backend
(`HEADER_FIELDS`): columns in SQL, hash fields in Redis.
"""

from agent_statestore.codec.audit import AuditRow, decode_audit, decode_trail, encode_via
from agent_statestore.codec.checkpoints import EncodedCheckpoint, encode_checkpoint
from agent_statestore.codec.contents import decode_message, encode_message
from agent_statestore.codec.contexts import decode_context
from agent_statestore.codec.failures import ERROR_ROOM_BYTES
from agent_statestore.codec.headers import HEADER_FIELDS, NEVER_US, decode_listed, decode_summary, encode_new
from agent_statestore.codec.signals import decode_signal, encode_signal, mailbox_key, noted_as, stamp
from agent_statestore.codec.steps import WITHOUT_INTENT, EncodedStep, decode_step, decode_steps, encode_step

__all__ = [
    "ERROR_ROOM_BYTES",
    "HEADER_FIELDS",
    "NEVER_US",
    "WITHOUT_INTENT",
    "AuditRow",
    "EncodedCheckpoint",
    "EncodedStep",
    "decode_audit",
    "decode_context",
    "decode_listed",
    "decode_message",
    "decode_signal",
    "decode_step",
    "decode_steps",
    "decode_summary",
    "decode_trail",
    "encode_checkpoint",
    "encode_message",
    "encode_new",
    "encode_signal",
    "encode_step",
    "encode_via",
    "mailbox_key",
    "noted_as",
    "stamp",
]
