-- uses: publish
-- Applies the commonest checkpoint, for which checkpoint.lua would work twice as long: one step with its result, under
-- the next number and a live lease, of an execution that is working and goes on. Any other checkpoint writes nothing
-- here and is left to that script, which also says what is wrong.
--
-- KEYS[1..2]    header and steps, as in execution.lua
-- KEYS[3]       events:<id>, if there are events; see stream.lua
-- ARGV[1]       injected time in us, or empty
-- ARGV[2]       checkpoint id
-- ARGV[3]       fencing token
-- ARGV[4..5]    number and text of the step
-- ARGV[6]       '=' and the id of the checkpoint that this one builds on, or empty
-- ARGV[7]       how many bytes the context may have
-- ARGV[8+]      if there are events: the place of the first one, and their texts
--
-- Returns {version, cancel_requested}, or nil.

-- A step without events has nothing more to do than before there were any: hence two ways through.
local h
if KEYS[3] then
  h = redis.call('HMGET', KEYS[1],
    'state', 'token', 'step_count', 'checkpoint_id', 'lease_until_us', 'version', 'cancel_requested',
    'context_bytes', 'stream_last', 'stream_place')
else
  h = redis.call('HMGET', KEYS[1],
    'state', 'token', 'step_count', 'checkpoint_id', 'lease_until_us', 'version', 'cancel_requested',
    'context_bytes')
end
if (h[1] ~= 'thinking' and h[1] ~= 'using_tool') or h[2] ~= ARGV[3] or h[4] == ARGV[2]
  or h[3] + 1 ~= tonumber(ARGV[4]) or (ARGV[6] ~= '' and ARGV[6] ~= '=' .. (h[4] or '')) then
  return false
end
local now = ARGV[1]
if now == '' then
  local t = redis.call('TIME')
  now = t[1] .. string.format('%06d', t[2])
end
if tonumber(h[5]) <= tonumber(now) then
  return false
end
local bytes = (h[8] or 0) + #ARGV[5]
if bytes > tonumber(ARGV[7]) then
  return false
end
local version, size = string.format('%.0f', h[6] + 1), string.format('%.0f', bytes)
if not KEYS[3] then
  redis.call('HSET', KEYS[1], 'version', version, 'checkpoint_id', ARGV[2], 'updated_us', now, 'step_count', ARGV[4],
    'crashes', '0', 'context_bytes', size)
else
  if tonumber(ARGV[8]) <= tonumber(h[10] or 0) then
    return false -- it has some of them, or they are of no attempt
  end
  -- Mostly there is one, and the time is its number: what is a text already need not be made one.
  local number, last, place, more = now, now, ARGV[8], #ARGV - 9
  if h[9] and tonumber(h[9]) >= tonumber(now) then
    number = string.format('%.0f', h[9] + 1)
    last = number
  end
  if more > 0 then
    last, place = string.format('%.0f', number + more), string.format('%.0f', place + more)
  end
  redis.call('HSET', KEYS[1], 'version', version, 'checkpoint_id', ARGV[2], 'updated_us', now, 'step_count', ARGV[4],
    'crashes', '0', 'context_bytes', size, 'stream_last', last, 'stream_place', place)
  if not h[9] then
    redis.call('DEL', KEYS[3]) -- as in stream.lua
  end
  redis.call('RPUSH', KEYS[3], number, ARGV[9])
  for at = 1, more do
    redis.call('RPUSH', KEYS[3], string.format('%.0f', number + at), ARGV[9 + at])
  end
end
redis.call('RPUSH', KEYS[2], ARGV[5])
redis.pcall(PUBLISH, KEYS[1], '')
return {version, h[7]}
