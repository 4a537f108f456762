-- uses: clock
-- Moves the end of the leases of one partition.
--
-- KEYS[1]   due       zset  execution id by due_us
-- KEYS[2]   leases    zset  execution id by lease_until_us
-- KEYS[3]   expiring  zset  execution id by the server's millisecond of its expiry
-- KEYS[4+]  for each lease ARGV[4] keys: x:<id> (hash, the header); with a ttl also the execution's other keys, which
--           expire together with it
--
-- ARGV[1]   injected time in us, or empty
-- ARGV[2]   ttl of the leases in us
-- ARGV[3]   ttl of a working execution in ms, or empty
-- ARGV[4]   keys per lease
-- ARGV[5+]  for each lease: execution id, token
--
-- Returns for each lease '0' (lost), '1' (renewed) or '2' (renewed, and a cancel is asked for).

local now, stride, outcome = clock_us(ARGV[1]), tonumber(ARGV[4]), {}
local until_us = now + tonumber(ARGV[2])
local until_text = text(until_us)
for n = 0, (#ARGV - 4) / 2 - 1 do
  local id, token, header = ARGV[5 + 2 * n], ARGV[6 + 2 * n], KEYS[4 + stride * n]
  local h = redis.pcall('HMGET', header, 'token', 'lease_until_us', 'cancel_requested')
  if h[1] ~= token or (tonumber(h[2] or '') or 0) <= now then
    outcome[#outcome + 1] = '0'
  else
    redis.call('HSET', header, 'lease_until_us', until_text)
    redis.call('ZADD', KEYS[1], until_text, id)
    redis.call('ZADD', KEYS[2], until_text, id)
    if ARGV[3] ~= '' then
      -- A long step is a sign of life as much as a write: its execution must not expire from under it.
      local at = text(server_ms() + tonumber(ARGV[3]))
      for i = 0, stride - 1 do
        redis.call('PEXPIREAT', KEYS[4 + stride * n + i], at)
      end
      redis.call('ZADD', KEYS[3], at, id)
    end
    outcome[#outcome + 1] = h[3] == '1' and '2' or '1'
  end
end
return outcome
