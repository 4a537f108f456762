-- Shared by the scripts that work on the documents of one root ("uses: clock document"). They are called with the
-- first of these keys, all in one partition:
--
--   KEYS[1]  docs:<root>       hash  the rest of a document's place -> its cell;
--                                    NUL and the rest of its place -> its value, if that is not in the cell
--   KEYS[2]  docindex:<root>   zset  the rests of the places of all documents
--   KEYS[3]  docexpiry:<root>  zset  the rest of a document's place by expires_us, of documents that expire
--   KEYS[4]  docroots          zset  the roots of this partition that hold documents
--   KEYS[5]  docexpiring       zset  the roots that hold documents that expire, by the soonest expires_us
--
-- In `docindex` and `docroots` all scores are 0, so that Redis orders the members as texts. A root is the text of a
-- namespace with one or two parts, as agent_statestore.documents.places writes it, and the rest of a place is what
-- follows it; neither holds NUL. A cell is, without line breaks,
--
--   <format>:<version>:<created_us>:<updated_us>:<expires_us>:<kind>:<bytes of write id>:<bytes of metadata>:
--   <write id><metadata><value>
--
-- The version is empty if it is updated_us, updated_us if it is created_us, and expires_us for never. The kind is 't'
-- for text or 'b' for bytes, and 'T' or 'B' if the value is not in the cell.

local HEAD = '^%d+:(%d*):(%d+):(%d*):(%d*):(%a):(%d+):(%d+):()'

-- Returns the document of a cell; nil if it is damaged.
local function parsed(cell)
  local version, created, updated, expires, kind, write_id, metadata, at = string.match(cell or '', HEAD)
  if not at then
    return nil
  end
  local behind_id = at + tonumber(write_id)
  return {
    version = tonumber(version ~= '' and version or updated ~= '' and updated or created),
    created = created,
    expires = expires,
    kind = kind,
    write_id = string.sub(cell, at, behind_id - 1),
    metadata_at = behind_id,
    value_at = behind_id + tonumber(metadata),
  }
end

-- Returns whether a document is there: a damaged one is, as nobody can say when it expires.
local function is_there(document, now)
  return document == nil or document.expires == '' or tonumber(document.expires) > now
end

local function is_apart(kind)
  return kind == 'T' or kind == 'B'
end

-- Returns the value that is not in the cell, or false.
local function value_of(rest)
  return redis.call('HGET', KEYS[1], '\0' .. rest)
end

-- Removes a document with all that belongs to it. Returns whether it had a time of expiry.
local function remove(rest, document)
  redis.call('HDEL', KEYS[1], rest)
  redis.call('ZREM', KEYS[2], rest)
  if document == nil or is_apart(document.kind) then
    redis.call('HDEL', KEYS[1], '\0' .. rest)
  end
  return (document == nil or document.expires ~= '') and redis.call('ZREM', KEYS[3], rest) == 1
end

-- Brings what the partition knows of the root up to date, after a removal or a change of expiry.
local function note_root(root, has_expiry_changed)
  if redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('ZREM', KEYS[4], root)
  end
  if has_expiry_changed then
    local soonest = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
    if soonest then
      redis.call('ZADD', KEYS[5], soonest, root)
    else
      redis.call('ZREM', KEYS[5], root)
    end
  end
end
