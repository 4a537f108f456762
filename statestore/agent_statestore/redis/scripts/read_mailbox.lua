-- Reads the unconsumed signals of an execution.
--
-- KEYS[1]  x:<id>        hash  header
-- KEYS[2]  mailbox:<id>  zset  unconsumed signal id by arrival
-- KEYS[3]  signals:<id>  hash  "t<signal id>" -> text, "s<signal id>" -> address; see execution.lua
--
-- Returns the state of the execution, or an empty text; then id, text and address of each signal, oldest first.

local found = {redis.call('HGET', KEYS[1], 'state') or ''}
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local mail = redis.call('HMGET', KEYS[3], 't' .. id, 's' .. id)
  found[#found + 1] = id
  found[#found + 1] = mail[1] or ''
  found[#found + 1] = mail[2] or ''
end
return found
