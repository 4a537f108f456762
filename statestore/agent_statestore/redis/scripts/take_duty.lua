-- uses: clock
-- Takes a duty, or keeps it, unless somebody else has it.
--
-- KEYS[1]  duties  hash  duty -> "until_us:owner"
--
-- ARGV[1]  injected time in us, or empty
-- ARGV[2]  duty
-- ARGV[3]  owner
-- ARGV[4]  ttl in us
-- ARGV[5]  '1' to take it from whoever has it
--
-- Returns nil if the caller has it now, else {owner, us that are left}.

local now = clock_us(ARGV[1])
local held = redis.call('HGET', KEYS[1], ARGV[2])
if held and ARGV[5] ~= '1' then
  local colon = string.find(held, ':', 1, true)
  local owner, left = string.sub(held, colon + 1), tonumber(string.sub(held, 1, colon - 1)) - now
  if left > 0 and owner ~= ARGV[3] then
    return {owner, text(left)}
  end
end
redis.call('HSET', KEYS[1], ARGV[2], text(now + tonumber(ARGV[4])) .. ':' .. ARGV[3])
return nil
