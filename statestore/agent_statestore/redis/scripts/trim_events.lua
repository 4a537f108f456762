-- uses: publish
-- Removes all events of a stream but the last ones.
--
-- KEYS[1]  x:<id>       hash  the header
-- KEYS[2]  events:<id>  list  see stream.lua
-- ARGV[1]  how many events stay
--
-- Returns how many were removed, or nil if none were.

local removed = redis.call('LLEN', KEYS[2]) / 2 - tonumber(ARGV[1])
if removed <= 0 or redis.call('HEXISTS', KEYS[1], 'stream_last') == 0 then
  return nil
end
local place = 2 * (removed - 1)
redis.call('HSET', KEYS[1], 'stream_trimmed', redis.call('LRANGE', KEYS[2], place, place)[1])
redis.call('LTRIM', KEYS[2], 2 * removed, -1)
redis.pcall(PUBLISH, KEYS[1], '')
return removed
