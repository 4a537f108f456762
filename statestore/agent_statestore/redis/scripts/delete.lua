-- uses: publish
-- Removes an execution from its keys and from every index.
--
-- KEYS[1..17]  as in execution.lua
-- KEYS[18]  cards        hash  execution id -> what never changes
-- KEYS[19]  idempotency  hash  "<agent id>\0<idempotency key>" -> execution id
-- KEYS[20..22] ended:<state>, zsets: execution id by ended_us
-- KEYS[23+] every index that may list it: the states, all, agent:<agent>, session:<session>, user:<user>; zsets
--
-- ARGV[1]   execution id
-- ARGV[2]   its index entry, "<created_us>:<id>"
-- ARGV[3]   its field in `idempotency`, or empty if it has none, or has it in another partition
-- ARGV[4]   '1' to remove only what has expired, else '0'
--
-- Returns {execution was there, something was removed}, each 1 or 0.

local id = ARGV[1]
local was_there = redis.call('EXISTS', KEYS[1])
if ARGV[4] == '1' and was_there == 1 then
  return {1, 0}
end
redis.call('DEL', KEYS[1])
for i = 3, 13 do
  redis.call('DEL', KEYS[i])
end
redis.call('ZREM', KEYS[2], id)
redis.call('HDEL', KEYS[14], id)
redis.call('ZREM', KEYS[15], id)
redis.call('HDEL', KEYS[16], id)
redis.call('ZREM', KEYS[17], id)
local known = redis.call('HDEL', KEYS[18], id)
-- After an expiry the key may belong to a new execution already.
if ARGV[3] ~= '' and redis.call('HGET', KEYS[19], ARGV[3]) == id then
  redis.call('HDEL', KEYS[19], ARGV[3])
end
for i = 20, 22 do
  redis.call('ZREM', KEYS[i], id)
end
for i = 23, #KEYS do
  redis.call('ZREM', KEYS[i], ARGV[2])
end
redis.pcall(PUBLISH, KEYS[1], '')
return {was_there, known}
