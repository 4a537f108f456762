-- uses: clock idempotency
-- Promises an idempotency key to an execution of another partition, which will be restored there.
--
-- KEYS[1]  idempotency  hash  "<agent id>\0<idempotency key>" -> execution id
-- KEYS[2]  promises     hash  the same field -> the promise to an execution of another partition
-- KEYS[3]  expiring     zset  execution id by the server's millisecond of its expiry
-- ARGV[1]  the field
-- ARGV[2]  execution id
-- ARGV[3]  a new promise
--
-- Returns {'OK', promise}, with the promise that was made before if there is one, or {'TAKEN', execution id}.

local holder = holder_of(KEYS[1], KEYS[3], ARGV[1])
if holder and holder ~= ARGV[2] then
  return {'TAKEN', holder}
end
local promise = redis.call('HGET', KEYS[2], ARGV[1])
if not promise then
  promise = ARGV[3]
  redis.call('HSET', KEYS[2], ARGV[1], promise)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return {'OK', promise}
