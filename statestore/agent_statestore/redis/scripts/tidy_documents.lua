-- uses: clock document
-- Removes documents of one root that have expired.
--
-- KEYS[1..5]  as in document.lua
-- ARGV[1]     injected time in us, or empty
-- ARGV[2]     root
-- ARGV[3]     most to remove
--
-- Returns how many were removed.

local now, root = clock_us(ARGV[1]), ARGV[2]
local rests = redis.pcall('ZRANGEBYSCORE', KEYS[3], '-inf', text(now), 'LIMIT', 0, ARGV[3])
local cells = not rests.err and #rests > 0 and redis.pcall('HMGET', KEYS[1], unpack(rests)) or rests
if cells.err or type(redis.pcall('ZCARD', KEYS[2])) == 'table' then
  redis.call('ZREM', KEYS[5], root) -- it is damaged: it must not be in the way of others for ever
  return 0
end
local count = 0
for number, rest in ipairs(rests) do
  local document = parsed(cells[number])
  if document and not is_there(document, now) then
    remove(rest, document)
    count = count + 1
  else
    redis.call('ZREM', KEYS[3], rest) -- damaged: nothing is known of its time
  end
end
note_root(root, true)
return count
