-- The holder of an idempotency key, put in front of every script that asks for it with "uses: idempotency".
--
--   idempotency  hash  "<agent id>\0<idempotency key>" -> execution id
--   expiring     zset  execution id by the server's millisecond of its expiry
--
-- An execution that was created here lives in the partition of its key. One that was restored may live in another,
-- where no script of this partition can look: the caller asks whether it is there; see redis/idempotency.py.

-- Returns the execution that has the key, or nil.
local function holder_of(idempotency, expiring, field)
  if field == '' then
    return nil
  end
  local holder = redis.call('HGET', idempotency, field)
  if not holder then
    return nil
  end
  -- The record counts as long as its execution exists; the sweeper's tidying may come later than the expiry.
  local expires_ms = redis.call('ZSCORE', expiring, holder)
  if expires_ms and tonumber(expires_ms) < server_ms() then
    return nil
  end
  return holder
end
