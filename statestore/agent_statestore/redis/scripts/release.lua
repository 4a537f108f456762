-- uses: clock states execution publish
-- Gives a lease up, or breaks the lease of a dead process.
--
-- KEYS[1..17]  as in execution.lua
-- ARGV[1]      injected time in us, or empty
-- ARGV[2]      execution id
-- ARGV[3]      token
-- ARGV[4]      '1' if the process crashed, else '0'
--
-- Returns 1, or 0 if the lease is lost.

local now, id = clock_us(ARGV[1]), ARGV[2]
local h = redis.call('HMGET', KEYS[1], 'token', 'lease_until_us', 'crashes', 'state')
if h[1] ~= ARGV[3] or tonumber(h[2]) <= now then
  return 0
end

local crashes = tonumber(h[3])
if ARGV[4] == '0' then
  crashes = math.max(crashes - 1, 0)
end
redis.call('HSET', KEYS[1],
  'lease_until_us', '0', 'rings', '0', 'crashes', text(crashes), 'updated_us', text(now))
redis.call('HDEL', KEYS[1], 'owner')
forget_lease(id)
ring_at(id, now)
touch(id, h[4], '') -- queued again, and a queued execution never expires
redis.pcall(PUBLISH, KEYS[1], '')
return 1
