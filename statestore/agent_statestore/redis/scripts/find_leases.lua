-- uses: clock
-- Lists the live leases of one partition whose owner starts with a prefix.
--
-- KEYS[1]  leases   zset  execution id by lease_until_us
-- KEYS[2]  holders  hash  execution id -> "token:owner"
-- ARGV[1]  injected time in us, or empty
-- ARGV[2]  prefix of the owner
--
-- Returns {now_us, execution id, lease_until_us, "token:owner", execution id, ...}.

local now = clock_us(ARGV[1])
local found = {text(now)}
local live = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf', 'WITHSCORES')
for i = 1, #live, 2 do
  local holder = redis.call('HGET', KEYS[2], live[i])
  local owner_at = string.find(holder, ':', 1, true) + 1
  if string.sub(holder, owner_at, owner_at + #ARGV[2] - 1) == ARGV[2] then
    found[#found + 1] = live[i]
    found[#found + 1] = live[i + 1]
    found[#found + 1] = holder
  end
end
return found
