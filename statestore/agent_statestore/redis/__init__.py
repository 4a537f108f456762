"""The Redis backend: one Lua script per primitive, on plain Redis 6.2 or newer, Valkey, and Redis Cluster."""

from agent_statestore.drivers import driver

with driver("redis", extra="redis"):
    from agent_statestore.redis.opening import open_redis
    from agent_statestore.redis.store import RedisStore

__all__ = ["RedisStore", "open_redis"]
