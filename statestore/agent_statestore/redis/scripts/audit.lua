-- The audit trail, put in front of every script that asks for it with "uses: audit".
--
-- An entry is one text: time in us, event, state before, state after, attempt, by, reason, signal, and the owner of the
-- lease under which it is written, joined by NUL. An empty field is null; `by` and `reason`, which may be empty texts,
-- have "=" in front. In the place of a signal may stand what `codec.audit.encode_via` made. Only the owner, which is the
-- last, may contain NUL.

local function note(audit, now, event, from, to, attempt, by, reason, signal, worker)
  redis.call('RPUSH', audit, table.concat({text(now), event, from, to, attempt, by, reason, signal, worker}, '\0'))
end
