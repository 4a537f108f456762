-- uses: clock states execution publish stream
-- Appends events to the stream of an execution, under its lease.
--
-- KEYS[1..17]  as in execution.lua; without a ttl only the header and events:<id>
-- ARGV[1]      injected time in us, or empty
-- ARGV[2]      execution id
-- ARGV[3]      fencing token
-- ARGV[4]      ttl of a working execution in ms, or empty
-- ARGV[5]      place of the first event
-- ARGV[6+]     texts of the events
--
-- Returns 1, or nil if the lease is lost.

local now = clock_us(ARGV[1])
local h = redis.call('HMGET', KEYS[1], 'token', 'lease_until_us', 'state', 'stream_last', 'stream_place')
if h[1] ~= ARGV[3] or tonumber(h[2]) <= now then
  return false
end
local place, has_place = tonumber(ARGV[5]), tonumber(h[5] or 0)
local from, number = new_events(h[4], has_place, place, 6, #ARGV, now)
if from then
  -- The header comes first, as in checkpoint.lua.
  redis.call('HSET', KEYS[1], 'stream_last', text(number + #ARGV - from),
    'stream_place', place_after(has_place, place, #ARGV - 5))
  push_events(KEYS[#KEYS > 2 and LAST_PART or 2], h[4], from, #ARGV, number)
  if ARGV[4] ~= '' then
    touch(ARGV[2], h[3], ARGV[4])
  end
  redis.pcall(PUBLISH, KEYS[1], '')
end
return 1
