-- uses: clock
-- Lists executions of one partition that have been over for some time, the longest first, and can still be archived or
-- purged.
--
-- KEYS[1]   expiring       zset  execution id by the server's millisecond of its expiry
-- KEYS[2+]  ended:<state>  zset  execution id by ended_us; see execution.lua
-- ARGV[1]   ended_us must be below
-- ARGV[2]   most to list of each state
-- ARGV[3]   ended_us must not be below
--
-- Expired executions are taken out, so that each is met only once: the rest of them is left to tidy.
--
-- Returns {execution id, ended_us, execution id, ...}.

local now_ms, limit, found = server_ms(), tonumber(ARGV[2]), {}
for i = 2, #KEYS do
  local listed, is_more = 0, true
  while is_more and listed < limit do
    local asked = limit - listed
    local batch = redis.call('ZRANGEBYSCORE', KEYS[i], ARGV[3], '(' .. ARGV[1], 'WITHSCORES', 'LIMIT', listed, asked)
    for at = 1, #batch, 2 do
      local expires_ms = redis.call('ZSCORE', KEYS[1], batch[at])
      if expires_ms and tonumber(expires_ms) < now_ms then
        redis.call('ZREM', KEYS[i], batch[at])
      else
        found[#found + 1] = batch[at]
        found[#found + 1] = batch[at + 1]
        listed = listed + 1
      end
    end
    is_more = #batch == 2 * asked
  end
end
return found
