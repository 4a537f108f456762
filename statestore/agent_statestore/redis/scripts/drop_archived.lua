-- uses: clock states execution publish
-- Starts the time to live of an execution that is over and of which another store has a copy.
--
-- KEYS[1..17]   as in execution.lua
-- KEYS[18..20]  ended:<state>, zsets: execution id by ended_us
-- ARGV[1]       execution id
-- ARGV[2..4]    how far the copy has come: version, token, entries of the audit trail
-- ARGV[5..7]    ttl in ms of a completed, failed, cancelled execution; empty: gone at once
--
-- Its place in the other indexes is left to tidy, as after any expiry.
--
-- Returns 1, or 0 if it may not be let go of.

local id = ARGV[1]
local h = redis.call('HMGET', KEYS[1], 'state', 'version', 'token')
if not is_over(h[1]) or h[2] ~= ARGV[2] or h[3] ~= ARGV[3] or redis.call('LLEN', KEYS[12]) ~= tonumber(ARGV[4])
  or redis.call('ZSCORE', KEYS[2], id) then
  return 0
end
local number = state_number(h[1]) - BEFORE_OVER
local was_listed = redis.call('ZREM', KEYS[17 + number], id) == 1
-- A repetition must not start the time anew.
if was_listed or not redis.call('ZSCORE', KEYS[17], id) then
  local ttl_ms = ARGV[4 + number]
  if ttl_ms ~= '' then
    expire_at(id, text(server_ms() + tonumber(ttl_ms)))
  else
    expire_at(id, text(server_ms() - 1))
    redis.pcall(PUBLISH, KEYS[1], '')
  end
end
return 1
