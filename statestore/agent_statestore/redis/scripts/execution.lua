-- Shared by the scripts that work on one execution ("uses: execution"). They are called with these keys, all in one
-- partition, or with the first few of them if they need no more:
--
--   KEYS[1]      x:<id>         hash   header: HEADER_FIELDS without due_us, which is the score in `due`
--   KEYS[2]      due            zset   execution id by due_us; not in it = null
--   KEYS[3]      steps:<id>     list   steps in order
--   KEYS[4]      intents:<id>   hash   step number -> name, of steps without a result
--   KEYS[5]      messages:<id>  list   messages in order
--   KEYS[6]      memory:<id>    hash   working memory: key -> JSON
--   KEYS[7]      facts:<id>     list   facts in order
--   KEYS[8]      entities:<id>  hash   name -> JSON
--   KEYS[9]      rag:<id>       list   retrieved passages in order
--   KEYS[10]     mailbox:<id>   zset   unconsumed signal id by arrival
--   KEYS[11]     signals:<id>   hash   "t<signal id>" -> text, while unconsumed;  "s<signal id>" -> address, while
--                                      remembered;  "c" -> signals that were accepted;  "c<number>" -> the one of that
--                                      number, if it is one of the last and no answer;
--                                      "n<address>" -> unconsumed signals there;  "a<address>" -> 1 once answered;
--                                      An address is "<kind>:<key>".  "seq" -> a number, of an older version
--   KEYS[12]     audit:<id>     list   entries of the audit trail in order; see audit.lua
--   KEYS[13]     events:<id>   list   its stream: number and text of each event in turn; see stream.lua
--   KEYS[14]     bells          hash   execution id -> "token:rings:cancel_requested:over", while it is due
--   KEYS[15]     leases         zset   execution id by lease_until_us, until the lease is given back
--   KEYS[16]     holders        hash   execution id -> "token:owner", until the lease is given back
--   KEYS[17]     expiring       zset   execution id by the server's millisecond at which all its own keys expire
--   KEYS[18..26] state:<state>  zset   index entry "<created_us>:<id>" of each execution in that state, in the order
--                                      of AgentState
--
-- Some scripts also take ended:<state>, zsets: execution id by ended_us, of executions that are over in that state, not
-- due for anything, and not accepted by another store (drop_archived).
--
-- is_over, is_paused, is_working, state_number, BEFORE_OVER and NEVER_US are generated from AgentState.

local FIRST_PART, LAST_PART, BEFORE_STATES = 3, 13, 17

-- Makes the execution due, or (nil) not due for anything. Called after the header is written: the bell copies from it
-- what a sweeper needs, because a sweeper's script cannot name the headers of the executions that it will find.
local function ring_at(id, due_us)
  if due_us == nil then
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[14], id)
    return
  end
  local h = redis.call('HMGET', KEYS[1], 'token', 'rings', 'cancel_requested', 'state')
  redis.call('ZADD', KEYS[2], text(due_us), id)
  redis.call('HSET', KEYS[14], id, h[1] .. ':' .. h[2] .. ':' .. h[3] .. ':' .. (is_over(h[4]) and '1' or '0'))
end

local function forget_lease(id)
  redis.call('ZREM', KEYS[15], id)
  redis.call('HDEL', KEYS[16], id)
end

local function move_state(id, current, new)
  if current ~= new then
    local entry = string.format('%018.0f', tonumber(redis.call('HGET', KEYS[1], 'created_us'))) .. ':' .. id
    redis.call('ZREM', KEYS[BEFORE_STATES + state_number(current)], entry)
    redis.call('ZADD', KEYS[BEFORE_STATES + state_number(new)], 0, entry)
  end
end

-- All keys get the same millisecond, so that no reader finds an execution in pieces.
local function expire_at(id, at)
  redis.call('PEXPIREAT', KEYS[1], at)
  for part = FIRST_PART, LAST_PART do
    redis.call('PEXPIREAT', KEYS[part], at)
  end
  redis.call('ZADD', KEYS[17], at, id)
end

-- Applies the expiry rule after a write: an execution that is over expires after ttl_ms (empty text = never), and so
-- does one that is worked on, under a lease that was not given back. A queued or paused one never does.
local function touch(id, state, ttl_ms)
  if ttl_ms ~= '' and (is_over(state) or (is_working(state) and redis.call('HGET', KEYS[1], 'lease_until_us') ~= '0')) then
    expire_at(id, text(server_ms() + tonumber(ttl_ms)))
  elseif redis.call('ZREM', KEYS[17], id) == 1 then
    redis.call('PERSIST', KEYS[1])
    for part = FIRST_PART, LAST_PART do
      redis.call('PERSIST', KEYS[part])
    end
  end
end

-- Returns the whole context as nested arrays, or nil.
local function read_context(id)
  local header = redis.call('HGETALL', KEYS[1])
  if #header == 0 then
    return nil
  end
  local due_us = redis.call('ZSCORE', KEYS[2], id)
  if due_us then
    header[#header + 1] = 'due_us'
    header[#header + 1] = due_us
  end
  local signals = redis.call('ZRANGE', KEYS[10], 0, -1)
  for i, signal_id in ipairs(signals) do
    signals[i] = redis.call('HGET', KEYS[11], 't' .. signal_id)
  end
  return {
    header,
    redis.call('LRANGE', KEYS[3], 0, -1),
    redis.call('LRANGE', KEYS[5], 0, -1),
    redis.call('HGETALL', KEYS[6]),
    redis.call('LRANGE', KEYS[7], 0, -1),
    redis.call('HGETALL', KEYS[8]),
    redis.call('LRANGE', KEYS[9], 0, -1),
    signals,
  }
end
