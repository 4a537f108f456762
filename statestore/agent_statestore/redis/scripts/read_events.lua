-- uses: states
-- Reads the events of a stream behind a number.
--
-- KEYS[1]  x:<id>       hash  the header
-- KEYS[2]  events:<id>  list  see stream.lua
-- ARGV[1]  the number
-- ARGV[2]  how many events at most
--
-- Returns {stream_last, stream_trimmed, '1' if the execution is over, else '0', number, text, ...}, or nil.

local h = redis.pcall('HMGET', KEYS[1], 'state', 'stream_last', 'stream_trimmed')
if not h[1] then
  return nil -- it is not there, or damaged
end
local last, after = tonumber(h[2] or 0) or 0, tonumber(ARGV[1])
local answer = {h[2] or '0', h[3] or '0', is_over(h[1]) and '1' or '0'}
if last <= after then
  return answer
end

local count = redis.pcall('LLEN', KEYS[2])
if type(count) ~= 'number' or count % 2 == 1 then
  -- Another key than a stream's: the reader is told that something is missing there, and can go on behind it.
  answer[4], answer[5] = h[2], ''
  return answer
end
local function number_at(event)
  return tonumber(redis.call('LRANGE', KEYS[2], 2 * event, 2 * event)[1] or 0) or 0
end
-- The first event behind the number is after `low` and at most at `high`. Readers are mostly near the end.
local low, high = -1, count / 2
if after > tonumber(h[3] or 0) then
  local stride = 1
  while high - stride >= 0 and number_at(high - stride) > after do
    high, stride = high - stride, stride * 2
  end
  low = math.max(high - stride, -1)
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if number_at(middle) > after then
      high = middle
    else
      low = middle
    end
  end
else
  high = 0
end
local rows = redis.call('LRANGE', KEYS[2], 2 * high, 2 * (high + tonumber(ARGV[2])) - 1)
for i = 1, #rows do
  answer[3 + i] = rows[i]
end
return answer
