-- Time and numbers, put in front of every script that asks for it with "uses: clock".
--
-- Times are microseconds in a double, exact up to 2^53; tostring() would round them to 14 digits.

local function text(number)
  return string.format('%.0f', number)
end

-- Returns the injected time, or the server's own if none is given (empty text).
local function clock_us(given)
  if given ~= '' then
    return tonumber(given)
  end
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- Expiry is the server's business, so it counts by the server's time even under an injected clock.
local function server_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
