-- uses: clock
-- Counts a claim as no crash, before its process is killed.
--
-- KEYS[1]  x:<id>  hash  the header
-- ARGV[1]  injected time in us, or empty
-- ARGV[2]  token
-- ARGV[3]  the crashes before the claim
--
-- Returns 1, or 0 if the lease is lost.

local now = clock_us(ARGV[1])
local h = redis.call('HMGET', KEYS[1], 'token', 'lease_until_us', 'crashes')
if h[1] ~= ARGV[2] or tonumber(h[2]) <= now then
  return 0
end
if tonumber(h[3]) > tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'crashes', ARGV[3])
end
return 1
