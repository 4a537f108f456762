-- Takes an idempotency key from an execution that is gone.
--
-- KEYS[1]  idempotency  hash  "<agent id>\0<idempotency key>" -> execution id
-- KEYS[2]  promises     hash  the same field -> the promise to an execution of another partition
-- KEYS[3]  x:<id>       hash  the header, if the execution's partition is that of the key
-- ARGV[1]  the field
-- ARGV[2]  execution id
-- ARGV[3]  promise, or empty
--
-- Returns 1, or 0 if the execution is there.

if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then
  return 0
end
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] and (redis.call('HGET', KEYS[2], ARGV[1]) or '') == ARGV[3] then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return 1
