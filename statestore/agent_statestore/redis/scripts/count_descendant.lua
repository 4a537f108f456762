-- Counts one more descendant of an execution.
--
-- KEYS[1]  x:<id>  hash  the header
-- ARGV[1]  how many there may be
--
-- Returns 1, or 0 if there are as many, or nil without the execution.

local h = redis.call('HMGET', KEYS[1], 'state', 'descendants')
if not h[1] then
  return false
end
if tonumber(h[2] or 0) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HINCRBY', KEYS[1], 'descendants', 1)
return 1
