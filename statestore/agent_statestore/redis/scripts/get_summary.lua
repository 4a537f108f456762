-- Reads the header of one execution without its input and output.
--
-- KEYS[1]   x:<id>  hash  the header
-- KEYS[2]   due     zset  execution id by due_us
-- ARGV[1]   execution id
-- ARGV[2+]  names of the fields, the first of which every header has
--
-- Returns the values in that order, followed by due_us, or nil.

local values = redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
if not values[1] then
  return nil
end
values[#values + 1] = redis.call('ZSCORE', KEYS[2], ARGV[1])
return values
