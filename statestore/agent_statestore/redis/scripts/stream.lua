-- The streams of executions, for the scripts that append to one ("uses: stream", behind clock).
--
--   events:<id>  list  number and text of each event in turn, in order
--
-- The header has, once there was an event: stream_last, the number of the last one; stream_place, the highest place of
-- an attempt's event (codec/streams.py), 0 if there was none; and stream_trimmed, the number up to which events were
-- removed, if any were. The rules are those of rules/streams.py.
--
-- A list: a stream of Redis needs twenty times the memory for a few events, and rights that older users of the server
-- do not have.

-- Returns where in ARGV the events begin that the stream does not have yet, and the number of the first of them; or
-- nil if it has them all. The events are ARGV[from..to], `place` is that of the first one.
local function new_events(last, has_place, place, from, to, now)
  if place > 0 then
    from = math.max(from, from + (has_place or 0) + 1 - place)
  end
  if from <= to then
    return from, math.max((last or 0) + 1, now)
  end
end

-- Returns the place of the last event then.
local function place_after(has_place, place, count)
  return text(place > 0 and math.max(has_place or 0, place + count - 1) or has_place or 0)
end

local function push_events(key, last, from, to, number)
  if not last then
    redis.call('DEL', key) -- an execution of this id that an older version removed may have left it
  end
  -- In pieces, because Lua passes some thousand arguments at most.
  for first = from, to, 500 do
    local rows = {}
    for at = first, math.min(first + 499, to) do
      rows[#rows + 1] = text(number + at - from)
      rows[#rows + 1] = ARGV[at]
    end
    redis.call('RPUSH', key, unpack(rows))
  end
end
