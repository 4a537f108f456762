-- uses: clock states
-- Records that bells of one partition were rung.
--
-- KEYS[1]   due    zset  execution id by due_us
-- KEYS[2]   bells  hash  execution id -> "token:rings:cancel_requested:over"
-- KEYS[3+]  for each bell x:<id>, hash, the header
--
-- ARGV[1]   injected time in us, or empty
-- ARGV[2]   first interval in us
-- ARGV[3]   longest interval in us
-- ARGV[4+]  for each bell: execution id, token

local now, first, maximum = clock_us(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for n = 0, (#ARGV - 3) / 2 - 1 do
  local id, token, header = ARGV[4 + 2 * n], ARGV[5 + 2 * n], KEYS[3 + n]
  local h = redis.pcall('HMGET', header, 'token', 'lease_until_us', 'rings', 'cancel_requested', 'state', 'not_before_us')
  if not h[1] and redis.call('EXISTS', header) == 0 then
    -- An entry without its execution: nothing is to be rung for.
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  elseif not (tonumber(h[2] or '') and tonumber(h[3] or '') and tonumber(h[6] or '') and h[4] and h[5]) then
    -- A damaged header, which no worker can claim: it must not be looked at more often than need be.
    redis.call('ZADD', KEYS[1], text(now + maximum), id)
  elseif h[1] == token and tonumber(h[2]) <= now and tonumber(h[6]) <= now and redis.call('ZSCORE', KEYS[1], id) then
    local rings = tonumber(h[3])
    local next_rings = text(rings + 1)
    redis.call('HSET', header, 'rings', next_rings)
    redis.call('HSET', KEYS[2], id, token .. ':' .. next_rings .. ':' .. h[4] .. ':' .. (is_over(h[5]) and '1' or '0'))
    redis.call('ZADD', KEYS[1], text(now + math.min(first * 2 ^ math.min(rings, 32), maximum)), id)
  end
end
return 0
