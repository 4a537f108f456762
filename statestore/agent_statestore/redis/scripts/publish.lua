-- The announcement of a change to those who watch an execution, put in front of every script that asks for it with
-- "uses: publish": redis.pcall(PUBLISH, x:<id>, '') on the channel that has the name of the header's key.
--
-- A server that knows sharded channels (Redis 7, Valkey) keeps the message within the shard; one without them gives
-- no version number. A user without the right to the channel may write all the same: the watchers then wait in vain
-- until they look by themselves, but nothing is left half-written.

local PUBLISH = redis.REDIS_VERSION_NUM and 'SPUBLISH' or 'PUBLISH'
