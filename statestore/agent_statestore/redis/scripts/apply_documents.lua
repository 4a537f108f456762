-- uses: clock document
-- Executes operations on documents of one root, all or nothing: every check stands before the first write. Decides as
-- agent_statestore.documents.rules.decide does.
--
-- KEYS[1..5]  as in document.lua
--
-- ARGV[1]     injected time in us, or empty
-- ARGV[2]     root
-- ARGV[3]     format of what is written
-- ARGV[4]     write id, or empty
-- then        operations as (kind, rest of the place, version that must stand there or empty); 'put' and 'keep' also have
--             (new version or empty, ttl in us or empty, metadata, kind of the value, value)
--
-- Returns {'OK' or 'APPLIED', version, version, ...}, {'CONFLICT', number of the operation, version that was found} or
-- {'UNREADABLE', number of the operation}.

local now, root, write_id = clock_us(ARGV[1]), ARGV[2], ARGV[4]
local operations, at = {}, 5
local is_applied = false
while at <= #ARGV do
  local kind, rest = ARGV[at], ARGV[at + 1]
  local is_put = kind == 'put' or kind == 'keep'
  local operation = {at = at, is_put = is_put, found = 0, cell = redis.call('HGET', KEYS[1], rest)}
  if operation.cell then
    local document = parsed(operation.cell)
    operation.document = document
    operation.is_damaged = not document
    if document and is_there(document, now) then
      operation.found = document.version
      operation.created = document.created
      is_applied = is_applied or (is_put and write_id ~= '' and document.write_id == write_id)
    end
  end
  operations[#operations + 1] = operation
  at = at + (is_put and 8 or 3)
end

if is_applied then
  local answer = {'APPLIED'}
  for number, operation in ipairs(operations) do
    answer[number + 1] = text(operation.found)
  end
  return answer
end

-- Returns the version that a put brings, or nil if it leaves what stands there.
local function next_version(operation)
  local found, given, if_version = operation.found, ARGV[operation.at + 3], ARGV[operation.at + 2]
  if ARGV[operation.at] == 'keep' and found ~= 0 then
    return nil
  elseif given == '' then
    return text(math.max(found + 1, now))
  elseif if_version == '' and found >= tonumber(given) then
    return nil
  end
  return given
end

local answer, has_puts = {'OK'}, false
for number, operation in ipairs(operations) do
  local kind, if_version, found = ARGV[operation.at], ARGV[operation.at + 2], operation.found
  local is_removal = kind == 'remove'
  -- Only a removal that asks for no version needs nothing of what it meets.
  if operation.is_damaged and not (is_removal and if_version == '') then
    return {'UNREADABLE', number}
  end
  if if_version ~= '' and tonumber(if_version) ~= found and not (is_removal and found == 0) then
    return {'CONFLICT', number, text(found)}
  end
  if operation.is_put then
    operation.version = next_version(operation)
    has_puts = has_puts or operation.version ~= nil
    answer[number + 1] = operation.version or text(found)
  else
    answer[number + 1] = is_removal and '0' or text(found)
  end
end

-- What adds comes first: it is the write that a server out of memory refuses, while nothing is written yet.
if has_puts then
  redis.call('ZADD', KEYS[4], 0, root)
end
local has_expiry_changed, now_text = false, text(now)
for _, operation in ipairs(operations) do
  if operation.version then
    local first, old = operation.at, operation.document
    local rest, ttl, metadata, kind, value = ARGV[first + 1], ARGV[first + 4], ARGV[first + 5], ARGV[first + 6],
      ARGV[first + 7]
    local created = operation.created or now_text
    local expires = ttl ~= '' and text(now + tonumber(ttl)) or ''
    local head = table.concat({
      ARGV[3],
      operation.version ~= now_text and operation.version or '',
      created,
      created ~= now_text and now_text or '',
      expires,
      kind,
      #write_id,
      #metadata,
    }, ':')
    redis.call('HSET', KEYS[1], rest, head .. ':' .. write_id .. metadata .. (is_apart(kind) and '' or value))
    redis.call('ZADD', KEYS[2], 0, rest)
    if is_apart(kind) then
      redis.call('HSET', KEYS[1], '\0' .. rest, value)
    elseif old and is_apart(old.kind) then
      redis.call('HDEL', KEYS[1], '\0' .. rest)
    end
    if expires ~= '' then
      redis.call('ZADD', KEYS[3], expires, rest)
      has_expiry_changed = true
    elseif old and old.expires ~= '' then
      redis.call('ZREM', KEYS[3], rest)
      has_expiry_changed = true
    end
  end
end
local has_removed = false
for _, operation in ipairs(operations) do
  if ARGV[operation.at] == 'remove' then
    has_expiry_changed = remove(ARGV[operation.at + 1], operation.document) or has_expiry_changed
    has_removed = true
  end
end
if has_removed or has_expiry_changed then
  note_root(root, has_expiry_changed)
end
return answer
