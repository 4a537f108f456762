-- uses: clock states execution audit publish stream
-- Applies one checkpoint, all or nothing: every check stands before the first write.
--
-- KEYS[1..26]   as in execution.lua; without a new state and a ttl only as many as the parts below need
-- KEYS[27]      ended:<state>, zset, of the new state if it is over, or of 'failed' if it is 'idle'
-- the last      events:<id>, if there are events and it is not among them yet
--
-- ARGV[1]       injected time in us, or empty
-- ARGV[2]       execution id
-- ARGV[3]       checkpoint id
-- ARGV[4]       fencing token, or empty for a write without a lease
-- ARGV[5]       ttl in ms of an execution that is over after this write, or else of a working one; or empty
-- ARGV[6]       '=' and the id of the checkpoint that this one builds on, or empty
-- ARGV[7]       how many bytes the context may have, and ':', and the numbers of the parts below, joined by commas,
--               without the zeros at the end: steps, messages, memory, forget, facts, entities, rag, consumed, events;
--               then, unless it is the lowest, ':' and the highest format of the parts
-- ARGV[8]       new state, or empty: then ARGV[9..18] are left out
-- ARGV[9]       states from which it may be reached, as ",a,b,"
-- ARGV[10..11]  waits, awaited; or empty
-- ARGV[12]      wake_us, or empty
-- ARGV[13..14]  output, error; or empty
-- ARGV[15]      announce within us, or empty
-- ARGV[16..18]  by, reason and signal, as in audit.lua
-- then          steps as (number, name, '1' if it has a result, text), messages, memory as (key, text), forget, facts,
--               entities as (name, text), rag, consumed signal ids; if there are events, the place of the first one
--               and their texts
--
-- Returns {'OK', version, cancel_requested, due_now}, {'NOT_FOUND'}, {'FORMAT_TOO_NEW', format}, {'LEASE_LOST'},
-- {'OVER', state}, {'LEASE_HELD'}, {'CONFLICT', last checkpoint}, {'ILLEGAL', current state},
-- {'STEP_CONFLICT', step number, recorded steps} or {'TOO_LARGE', bytes, limit}.

local now, id, token, new = clock_us(ARGV[1]), ARGV[2], ARGV[4], ARGV[8]
local IS_WHOLE = #KEYS > LAST_PART
local h = redis.call('HMGET', KEYS[1],
  'checkpoint_id', 'version', 'cancel_requested', 'state', 'token', 'lease_until_us', 'step_count', 'format',
  'context_bytes', 'stream_last', 'stream_place')
local current = h[4]
if not current then
  return {'NOT_FOUND'}
end

local function answer(version, state)
  local due_now = '0'
  if is_paused(state) then
    local due_us = redis.call('ZSCORE', KEYS[2], id)
    due_now = (due_us and tonumber(due_us) <= now) and '1' or '0'
  end
  return {'OK', version, h[3], due_now}
end

if token == '' and tonumber(h[8]) > NEWEST_FORMAT then
  return {'FORMAT_TOO_NEW', h[8]}
end
if h[1] == ARGV[3] then
  return answer(h[2], current)
end
local lease_lives = tonumber(h[6]) > now
if token ~= '' and (h[5] ~= token or not lease_lives) then
  return {'LEASE_LOST'}
end
if is_over(current) and not (current == 'failed' and new == 'idle') then
  return {'OVER', current}
end
if token == '' and lease_lives then
  return {'LEASE_HELD'}
end
if ARGV[6] ~= '' and ARGV[6] ~= '=' .. (h[1] or '') then
  return {'CONFLICT', h[1] or ''}
end
if new ~= '' and not string.find(ARGV[9], ',' .. current .. ',', 1, true) then
  return {'ILLEGAL', current}
end

local counts, kinds = {0, 0, 0, 0, 0, 0, 0, 0, 0}, 0
local limit, numbers, format = string.match(ARGV[7], '^(%d+):([%d,]*):?(%d*)$')
for count in string.gmatch(numbers, '%d+') do
  kinds = kinds + 1
  counts[kinds] = tonumber(count)
end
local first_step = new == '' and 9 or 19
local recorded = tonumber(h[7])
local steps = recorded
for i = 0, counts[1] - 1 do
  local at = first_step + 4 * i
  local number = tonumber(ARGV[at])
  if number == steps + 1 then
    steps = number
  elseif number > steps or redis.call('HGET', KEYS[4], ARGV[at]) ~= ARGV[at + 1] then
    return {'STEP_CONFLICT', ARGV[at], h[7]}
  end
end

-- The size of the context: of what comes, without what it replaces or takes out.
local grown, at = 0, first_step
for _ = 1, counts[1] do
  grown = grown + #ARGV[at + 3]
  if tonumber(ARGV[at]) <= recorded then
    local place = tonumber(ARGV[at]) - 1
    grown = grown - #redis.call('LRANGE', KEYS[3], place, place)[1]
  end
  at = at + 4
end
local function size_in(key, name)
  return #(redis.call('HGET', key, name) or '') -- HSTRLEN would be one more right that a user of the server needs
end
local function grow_by_list(count)
  for _ = 1, count do
    grown, at = grown + #ARGV[at], at + 1
  end
end
-- What is set here and forgotten at once is counted as forgotten.
local function grow_by_hash(key, count, set)
  for _ = 1, count do
    local old = size_in(key, ARGV[at])
    grown = grown + #ARGV[at + 1] - old + (old == 0 and #ARGV[at] or 0)
    set[ARGV[at]] = #ARGV[at + 1]
    at = at + 2
  end
end
grow_by_list(counts[2])
local set_now = {}
grow_by_hash(KEYS[6], counts[3], set_now)
for _ = 1, counts[4] do
  local old = set_now[ARGV[at]] or size_in(KEYS[6], ARGV[at])
  grown, at = grown - (old > 0 and old + #ARGV[at] or 0), at + 1
end
grow_by_list(counts[5])
grow_by_hash(KEYS[8], counts[6], {})
grow_by_list(counts[7])
for _ = 1, counts[8] do
  grown, at = grown - size_in(KEYS[11], 't' .. ARGV[at]), at + 1
end
local bytes = math.max(tonumber(h[9] or 0) + grown, 0)
if grown > 0 and bytes > tonumber(limit) and new ~= 'failed' and new ~= 'cancelled' then
  return {'TOO_LARGE', text(bytes), limit}
end

-- The header comes first: it is the write that a server out of memory refuses, while nothing is written yet.
local version = text(tonumber(h[2]) + 1)
local set = {'version', version, 'checkpoint_id', ARGV[3], 'updated_us', text(now), 'step_count', text(steps),
  'context_bytes', text(bytes)}
local unset = {}
local gives_back = is_paused(new) or is_over(new)
local frees = new == 'idle' or (token == '' and is_working(new))
local worker = ''
if counts[1] > 0 or is_paused(new) or new == 'idle' then
  set[11], set[12] = 'crashes', '0'
end
if format ~= '' and tonumber(format) > tonumber(h[8]) then
  set[#set + 1], set[#set + 2] = 'format', format
end
if new ~= '' then
  if lease_lives then
    worker = redis.call('HGET', KEYS[1], 'owner')
  end
  local function put(name, value)
    if value == '' then
      unset[#unset + 1] = name
    else
      set[#set + 1] = name
      set[#set + 1] = value
    end
  end
  put('state', new)
  put('waits', ARGV[10])
  put('awaited', ARGV[11])
  if gives_back then
    put('owner', '')
    put('lease_until_us', '0')
  end
  if gives_back or new == 'idle' then
    put('rings', '0')
  end
  if is_over(new) or new == 'idle' then
    put('output', ARGV[13])
    put('error', ARGV[14])
    put('ended_us', is_over(new) and text(now) or '')
  end
  if frees then
    put('not_before_us', '0')
  end
end
local events = counts[9]
local place, has_place, first_event, event_number = 0, tonumber(h[11] or 0), nil, nil
if events > 0 then
  place = tonumber(ARGV[#ARGV - events])
  first_event, event_number = new_events(h[10], has_place, place, #ARGV - events + 1, #ARGV, now)
  if first_event then
    set[#set + 1], set[#set + 2] = 'stream_last', text(event_number + #ARGV - first_event)
    set[#set + 1], set[#set + 2] = 'stream_place', place_after(has_place, place, events)
  end
end
redis.call('HSET', KEYS[1], unpack(set))
if #unset > 0 then
  redis.call('HDEL', KEYS[1], unpack(unset))
end

local next_arg = first_step
for _ = 1, counts[1] do
  local number, name, done, step = ARGV[next_arg], ARGV[next_arg + 1], ARGV[next_arg + 2], ARGV[next_arg + 3]
  if tonumber(number) <= recorded then
    redis.call('LSET', KEYS[3], tonumber(number) - 1, step)
    if done == '1' then
      redis.call('HDEL', KEYS[4], number)
    end
  else
    redis.call('RPUSH', KEYS[3], step)
  end
  if done == '0' then
    redis.call('HSET', KEYS[4], number, name)
  end
  next_arg = next_arg + 4
end
-- Plain loops: closures would cost more than their work.
for at = next_arg, next_arg + counts[2] - 1 do
  redis.call('RPUSH', KEYS[5], ARGV[at])
end
next_arg = next_arg + counts[2]
for at = next_arg, next_arg + 2 * counts[3] - 1, 2 do
  redis.call('HSET', KEYS[6], ARGV[at], ARGV[at + 1])
end
next_arg = next_arg + 2 * counts[3]
for at = next_arg, next_arg + counts[4] - 1 do
  redis.call('HDEL', KEYS[6], ARGV[at])
end
next_arg = next_arg + counts[4]
for at = next_arg, next_arg + counts[5] - 1 do
  redis.call('RPUSH', KEYS[7], ARGV[at])
end
next_arg = next_arg + counts[5]
for at = next_arg, next_arg + 2 * counts[6] - 1, 2 do
  redis.call('HSET', KEYS[8], ARGV[at], ARGV[at + 1])
end
next_arg = next_arg + 2 * counts[6]
for at = next_arg, next_arg + counts[7] - 1 do
  redis.call('RPUSH', KEYS[9], ARGV[at])
end
next_arg = next_arg + counts[7]
for at = next_arg, next_arg + counts[8] - 1 do
  local signal_id = ARGV[at]
  local arrived = redis.call('ZSCORE', KEYS[10], signal_id)
  if arrived then
    redis.call('ZREM', KEYS[10], signal_id)
    local address = redis.call('HGET', KEYS[11], 's' .. signal_id)
    redis.call('HDEL', KEYS[11], 't' .. signal_id)
    if redis.call('HINCRBY', KEYS[11], 'n' .. address, -1) == 0 then
      redis.call('HDEL', KEYS[11], 'n' .. address)
    end
    -- It is remembered if it is one of the last, or an answer.
    if redis.call('HEXISTS', KEYS[11], 'c' .. arrived) == 0 and redis.call('HEXISTS', KEYS[11], 'a' .. address) == 0 then
      redis.call('HDEL', KEYS[11], 's' .. signal_id)
    end
  end
end

if new ~= '' then
  if is_paused(new) then
    local due_us, not_before
    local has_come = h[3] == '1'
    for _, address in ipairs(ARGV[11] ~= '' and cjson.decode(ARGV[11]) or {}) do
      has_come = has_come or redis.call('HEXISTS', KEYS[11], 'n' .. address) == 1
    end
    if has_come then
      due_us, not_before = now, '0'
    elseif ARGV[12] ~= '' then
      due_us, not_before = tonumber(ARGV[12]), ARGV[12]
    else
      due_us, not_before = nil, NEVER_US
    end
    redis.call('HSET', KEYS[1], 'not_before_us', not_before)
    ring_at(id, due_us)
  elseif is_over(new) then
    ring_at(id, ARGV[15] ~= '' and now + tonumber(ARGV[15]) or nil)
    if ARGV[15] == '' then
      redis.call('ZADD', KEYS[27], text(now), id) -- else settle.lua does so, when the end has been announced
    end
  elseif frees then
    ring_at(id, now)
  end
  if gives_back then
    forget_lease(id)
  end
  if new ~= current then
    note(KEYS[12], now, 'moved', current, new, h[5], ARGV[16], ARGV[17], ARGV[18], worker)
    move_state(id, current, new)
    if new == 'idle' then
      redis.call('ZREM', KEYS[27], id)
    end
  end
end
if first_event then
  push_events(KEYS[IS_WHOLE and LAST_PART or #KEYS], h[10], first_event, #ARGV, event_number)
end
if IS_WHOLE then
  touch(id, new ~= '' and new or current, frees and '' or ARGV[5]) -- an execution that is queued again never expires
end
redis.pcall(PUBLISH, KEYS[1], '')
return answer(version, new ~= '' and new or current)
