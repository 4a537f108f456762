-- uses: clock document
-- Lists documents of one root in the order of their places, or in the opposite order.
--
-- KEYS[1..2]  as in document.lua
-- ARGV[1]     injected time in us, or empty
-- ARGV[2..3]  where the range begins and where it ends, as ZRANGEBYLEX or ZREVRANGEBYLEX takes them
-- ARGV[4]     '1' for the opposite order, else '0'
-- ARGV[5]     how many documents are wanted
-- ARGV[6]     '1' if their values are wanted, else '0'
-- ARGV[7]     about how many documents may be looked at: others want the server, too
-- ARGV[8]     about how many bytes may be answered at once
-- ARGV[9..]   texts that the metadata of each must contain
--
-- Returns {where what was not looked at begins, or empty if that is all, rest of the place, cell, value that is not in
-- the cell, rest, ...}.

local now, begin, is_descending = clock_us(ARGV[1]), ARGV[2], ARGV[4] == '1'
local wanted, with_values, to_look_at, bytes = tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8])
local batch = #ARGV > 8 and 100 or math.min(wanted, 100)

-- Returns whether a cell may be one of those that are wanted: finding a text costs a tenth of parsing the cell.
local function may_match(cell)
  return #ARGV < 9 or string.find(cell, ARGV[9], 1, true)
end

local function has_all_lines(cell, document)
  if #ARGV < 9 then
    return true
  end
  local metadata = string.sub(cell, document.metadata_at, document.value_at - 1)
  for at = 9, #ARGV do
    if not string.find(metadata, ARGV[at], 1, true) then
      return false
    end
  end
  return true
end

-- Returns the cell, cut to what is wanted of it, and the value beside it; nil if the document is not wanted.
local function looked_at(rest, cell)
  local document = parsed(cell)
  if document == nil then
    -- Nobody can say what the metadata of a damaged one was.
    return #ARGV < 9 and string.sub(cell, 1, 100) or nil, false
  elseif not is_there(document, now) or not has_all_lines(cell, document) then
    return nil, false
  elseif not with_values then
    return string.sub(cell, 1, document.value_at - 1), false
  end
  return cell, is_apart(document.kind) and value_of(rest)
end

local function next_rests()
  if is_descending then
    return redis.call('ZREVRANGEBYLEX', KEYS[2], begin, ARGV[3], 'LIMIT', 0, batch)
  end
  return redis.call('ZRANGEBYLEX', KEYS[2], begin, ARGV[3], 'LIMIT', 0, batch)
end

local answer = {''}
while true do
  local rests = next_rests()
  if #rests == 0 then
    return answer
  end
  local cells = redis.call('HMGET', KEYS[1], unpack(rests))
  for number, rest in ipairs(rests) do
    local cell = cells[number] or ''
    if may_match(cell) then
      local found, value = looked_at(rest, cell)
      if found then
        answer[#answer + 1] = rest
        answer[#answer + 1] = found
        answer[#answer + 1] = value
        bytes = bytes - #rest - #found - #(value or '')
      end
      if #answer == 3 * wanted + 1 then
        return answer
      elseif bytes <= 0 then
        answer[1] = '(' .. rest
        return answer
      end
    end
  end
  if #rests < batch then
    return answer
  end
  begin = '(' .. rests[#rests]
  to_look_at = to_look_at - batch
  if to_look_at <= 0 then
    answer[1] = begin
    return answer
  end
end
