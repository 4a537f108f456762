-- uses: clock document
-- Reads documents of one root.
--
-- KEYS[1]     as in document.lua
-- ARGV[1]     injected time in us, or empty
-- ARGV[2]     about how many bytes may be answered at once
-- ARGV[3..]   the rests of their places
--
-- Returns {cell, value that is not in the cell, cell, value, ...}, with nil for what is not there. It stops early, but
-- not before the first, where the answer becomes large.

local now, left = clock_us(ARGV[1]), tonumber(ARGV[2])
local answer = {}
for at = 3, #ARGV do
  local cell, value = redis.call('HGET', KEYS[1], ARGV[at]), false
  if cell then
    local document = parsed(cell)
    if not is_there(document, now) then
      cell = false
    elseif document and is_apart(document.kind) then
      value = value_of(ARGV[at])
    end
  end
  answer[#answer + 1] = cell
  answer[#answer + 1] = value
  left = left - #(cell or '') - #(value or '')
  if left <= 0 then
    break
  end
end
return answer
