"""Webhooks: receivers outside are told of questions, approvals and ends, and reminded of what is still open.

The way of a delivery: `notes` writes, in the store, that somebody is to be told -> `deliverer`, in the worker that
sweeps, takes what is due -> `payload` says what is told, from the execution as it is then -> `sending` signs and posts
it -> `deliveries` keeps what came of it: delivered, to be tried again, or dead.

A note holds no contents of an execution: who is to be told, of what. It is written before the execution pauses, or
again and again until its end is settled, under a key that follows from what it tells of. So a crash loses none, and
writing one twice changes nothing.
"""

from celery_agents.webhooks.deliveries import Deliveries, Delivery, DeliveryStatus

__all__ = ["Deliveries", "Delivery", "DeliveryStatus"]
