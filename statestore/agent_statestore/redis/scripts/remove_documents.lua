-- uses: clock document
-- Removes documents of one root: all of them, or some of a range.
--
-- KEYS[1..5]  as in document.lua
-- KEYS[6..7]  docvectors and docvectorsets, as KEYS[2] and KEYS[3] of copy_vectors.lua
-- KEYS[8..]   the vector sets of the root
-- ARGV[1]     injected time in us, or empty
-- ARGV[2]     root
-- ARGV[3..4]  where the range begins and where it ends, as ZRANGEBYLEX takes them; '-' and '+' for the whole root
-- ARGV[5]     how many documents of a range may be removed at once: others want the server, too
--
-- Returns {how many documents were there, '1' if the range may hold more, else '0'}, or {'SETS', name, ...} with nothing
-- done: the root has these vector sets, and they are not those in KEYS.
--
-- The copies of vectors go with any range: those of what stays are made again.

local now, root = clock_us(ARGV[1]), ARGV[2]
local sets = redis.pcall('ZRANGE', KEYS[7], 0, -1)
if not sets.err and #sets ~= #KEYS - 7 then
  return {'SETS', unpack(sets)}
end
for number = 6, #KEYS do
  redis.call('UNLINK', KEYS[number])
end
if ARGV[3] == '-' and ARGV[4] == '+' then
  -- A key of another type, which only damage can bring about, is dropped as well.
  local all = redis.pcall('ZCARD', KEYS[2])
  local expired = redis.pcall('ZCOUNT', KEYS[3], '-inf', text(now))
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
  redis.call('ZREM', KEYS[4], root)
  redis.call('ZREM', KEYS[5], root)
  return {(tonumber(all) or 0) - (tonumber(expired) or 0), '0'}
end

local most = tonumber(ARGV[5])
local rests = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[3], ARGV[4], 'LIMIT', 0, most)
if #rests == 0 then
  return {0, '0'}
end
local cells = redis.call('HMGET', KEYS[1], unpack(rests))
local count, has_expiry_changed = 0, false
for number, rest in ipairs(rests) do
  local document = parsed(cells[number])
  if is_there(document, now) then
    count = count + 1
  end
  has_expiry_changed = remove(rest, document) or has_expiry_changed
end
note_root(root, has_expiry_changed)
return {count, #rests == most and '1' or '0'}
