-- uses: states
-- Clears the due time of an execution that is over: from now on it may be archived.
--
-- KEYS[1]     x:<id>         hash  the header
-- KEYS[2]     due            zset  execution id by due_us
-- KEYS[3]     bells          hash  execution id -> "token:rings:cancel_requested:over"
-- KEYS[4..6]  ended:<state>  zset  execution id by ended_us; see execution.lua
-- ARGV[1]     execution id

-- An execution that was over before `ended_us` existed was not written to since.
local h = redis.call('HMGET', KEYS[1], 'state', 'ended_us', 'updated_us')
if is_over(h[1]) then
  redis.call('HDEL', KEYS[3], ARGV[1])
  if redis.call('ZREM', KEYS[2], ARGV[1]) == 1 then
    redis.call('ZADD', KEYS[3 + state_number(h[1]) - BEFORE_OVER], h[2] or h[3], ARGV[1])
  end
end
return 0
