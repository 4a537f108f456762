-- uses: clock
-- Takes executions of one partition whose time has come, longest due first, and moves them on.
--
-- KEYS[1]  due       zset  execution id by due_us
-- KEYS[2]  bells     hash  execution id -> "token:rings:cancel_requested:over"
-- KEYS[3]  cards     hash  execution id -> what never changes
-- KEYS[4]  expiring  zset  execution id by the server's millisecond of its expiry
-- ARGV[1]  injected time in us, or empty
-- ARGV[2]  most to take; may be 0, to learn only how many there are
-- ARGV[3]  grace in us
--
-- Returns {how many are due besides those looked at, execution id, due_us, bell, card, execution id, ...}.

local now = clock_us(ARGV[1])
local waiting = redis.call('ZCOUNT', KEYS[1], '-inf', text(now))
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'WITHSCORES', 'LIMIT', 0, ARGV[2])
-- Counted, not asked for afterwards: without a grace, taken executions are due again at once.
local taken = {waiting - #due / 2}
for i = 1, #due, 2 do
  local id = due[i]
  local expires_ms = redis.call('ZSCORE', KEYS[4], id)
  if expires_ms and tonumber(expires_ms) < server_ms() then
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  else
    taken[#taken + 1] = id
    taken[#taken + 1] = due[i + 1]
    -- Either may be missing where an entry was left without its execution; mark_rung then removes it.
    taken[#taken + 1] = redis.call('HGET', KEYS[2], id) or ''
    taken[#taken + 1] = redis.call('HGET', KEYS[3], id) or ''
  end
end
for i = 2, #taken, 4 do
  redis.call('ZADD', KEYS[1], text(now + tonumber(ARGV[3])), taken[i])
end
return taken
