-- Reads the header of one execution without its input and output.
--
-- KEYS[1]   x:<id>  hash  the header
-- KEYS[2]   due     zset  execution id by due_us
-- ARGV[1]   execution id
-- ARGV[2+]  names of the fields, the first of which every header has
--
-- Returns the values in that order, followed by due_us, or nil.

local values = redis.pcall('HMGET', KEYS[1], unpack(ARGV, 2))
if values.err then
  -- No hash: a damaged header, of which nothing can be read.
  values = {}
  for i = 1, #ARGV - 1 do
    values[i] = false
  end
elseif not values[1] and redis.call('EXISTS', KEYS[1]) == 0 then
  return nil
end
values[#values + 1] = redis.call('ZSCORE', KEYS[2], ARGV[1])
return values
