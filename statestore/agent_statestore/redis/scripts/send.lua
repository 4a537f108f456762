-- uses: clock states execution audit publish stream
-- Puts a signal into the mailbox.
--
-- KEYS[1..17]  as in execution.lua
-- ARGV[1]      injected time in us, or empty
-- ARGV[2]      execution id
-- ARGV[3]      signal id
-- ARGV[4]      kind
-- ARGV[5]      key, with the round from the second on (`codec.signals.mailbox_key`)
-- ARGV[6]      text, to be completed by the time
-- ARGV[7]      '1' if it answers a question, of which only the first answer counts, else '0'
-- ARGV[8]      '1' if it is a cancel, else '0'
-- ARGV[9]      ttl of a working execution in ms, or empty
-- ARGV[10]     its name in the audit trail, or empty: it does not go there
-- ARGV[11..12] sender and reason, as in audit.lua
-- ARGV[13]     how many signals the mailbox holds; the ids of as many are remembered
-- ARGV[14]     '1' if it is an event, or said, else '0'
-- ARGV[15]     how many bytes the context may have
-- ARGV[16]     format of the text, or empty if it is the lowest
-- ARGV[17]     the event that tells of it, if a stream does
--
-- Returns {'OK', woke}, {'NOT_FOUND'}, {'FORMAT_TOO_NEW', format}, {'OVER', state}, {'MAILBOX_FULL'},
-- {'TOO_LARGE', bytes, limit}, {'ALREADY_ANSWERED'} or {'NOT_ASKED'}.

local now, id = clock_us(ARGV[1]), ARGV[2]
local h = redis.call('HMGET', KEYS[1], 'state', 'lease_until_us', 'awaited', 'format', 'token', 'owner',
  'cancel_requested', 'context_bytes', 'stream_last', 'stream_place')
if not h[1] then
  return {'NOT_FOUND'}
end
if tonumber(h[4]) > NEWEST_FORMAT then
  return {'FORMAT_TOO_NEW', h[4]}
end
local sent = redis.call('HGET', KEYS[11], 's' .. ARGV[3])
if sent and string.find(sent, ':', 1, true) then -- without a colon it is the number of an older version
  return {'OK', '0'}
end
if is_over(h[1]) then
  return {'OVER', h[1]}
end
local address, is_answer, is_cancel = ARGV[4] .. ':' .. ARGV[5], ARGV[7] == '1', ARGV[8] == '1'
local max_mailbox = tonumber(ARGV[13])
if (ARGV[14] == '1' or (is_cancel and h[7] == '1')) and redis.call('ZCARD', KEYS[10]) >= max_mailbox then
  return {'MAILBOX_FULL'}
end
local stamped = ARGV[6] .. '"at":' .. text(now) .. '}' -- as codec.stamp
local bytes = tonumber(h[8] or 0) + #stamped
if ARGV[14] == '1' and bytes > tonumber(ARGV[15]) then
  return {'TOO_LARGE', text(bytes), ARGV[15]}
end
local awaited = false
for _, each in ipairs(h[3] and cjson.decode(h[3]) or {}) do
  awaited = awaited or each == address
end
if is_answer then
  if redis.call('HEXISTS', KEYS[11], 'a' .. address) == 1 then
    return {'ALREADY_ANSWERED'}
  end
  if not awaited then
    return {'NOT_ASKED'}
  end
end

local lease_lives = tonumber(h[2]) > now
local woke = not lease_lives and (is_cancel or (awaited and is_paused(h[1])))
redis.call('HSET', KEYS[1], 'updated_us', text(now), 'context_bytes', text(bytes))
if (tonumber(ARGV[16] or '') or 0) > tonumber(h[4]) then
  redis.call('HSET', KEYS[1], 'format', ARGV[16])
end
if is_cancel then
  redis.call('HSET', KEYS[1], 'cancel_requested', '1')
end
if ARGV[10] ~= '' then
  note(KEYS[12], now, ARGV[10], h[1], '', h[5], ARGV[11], ARGV[12], stamped, lease_lives and h[6] or '')
end
redis.call('HSET', KEYS[11], 's' .. ARGV[3], address, 't' .. ARGV[3], stamped)
redis.call('HINCRBY', KEYS[11], 'n' .. address, 1)
local last = redis.call('ZRANGE', KEYS[10], -1, -1, 'WITHSCORES')[2]
local number = math.max(tonumber(redis.call('HGET', KEYS[11], 'c') or 0), last and tonumber(last) or 0) + 1
redis.call('ZADD', KEYS[10], text(number), ARGV[3])
redis.call('HSET', KEYS[11], 'c', text(number))
if is_answer then
  redis.call('HSET', KEYS[11], 'a' .. address, '1')
else
  redis.call('HSET', KEYS[11], 'c' .. text(number), ARGV[3])
end
local old = 'c' .. text(number - max_mailbox)
local forgotten = redis.call('HGET', KEYS[11], old)
if forgotten then
  redis.call('HDEL', KEYS[11], old)
  if redis.call('HEXISTS', KEYS[11], 't' .. forgotten) == 0 then
    redis.call('HDEL', KEYS[11], 's' .. forgotten)
  end
end
if woke then
  redis.call('HSET', KEYS[1], 'not_before_us', '0', 'rings', '0')
  ring_at(id, now)
elseif is_cancel then
  local due_us = redis.call('ZSCORE', KEYS[2], id)
  if due_us then
    ring_at(id, tonumber(due_us)) -- the bell has a copy of cancel_requested
  end
end
if ARGV[17] then
  local _, event_number = new_events(h[9], 0, 0, 17, 17, now)
  redis.call('HSET', KEYS[1], 'stream_last', text(event_number), 'stream_place', h[10] or '0')
  push_events(KEYS[LAST_PART], h[9], 17, 17, event_number)
end
touch(id, h[1], ARGV[9])
redis.pcall(PUBLISH, KEYS[1], '')
return {'OK', woke and '1' or '0'}
